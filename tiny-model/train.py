"""Trains mlxcel-tiny on what `generate.py` writes, and exports it to `mlxcel-tiny/`.

    python tiny-model/train.py --minutes 60
    python tiny-model/train.py --minutes 45 --from-weights tiny-model/mlxcel-tiny --lr 3e-3

The learning rate and the sequence length follow the clock, not a step count: the
budget is what is fixed, whatever the machine is shared with. A checkpoint is
written every eight minutes; `--resume` goes on from it with the time that is left.
`--from-weights` starts a new run, with a warm-up of its own, from exported weights;
`--average` then gives back what a short run lost (model soups, arXiv:2203.05482).
"""

from __future__ import annotations

import argparse
import bisect
import itertools
import json
import math
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, distributed, multiprocessing
from torch.nn import functional as F

import chat
import generate
from model import Llama, Shape

PROMPT_SHARE = 0.1  # of the tokens that are not the model's to write, in the loss
POSITIONS = Shape().max_position_embeddings
TOKENS_A_STEP = 8192  # of all processes together
# (share of the time, sequence lengths by turns): short while the tasks are learnt, then
# with long ones among them, so that a long prompt does not throw the model off. Not shorter
# than 512: half of the conversations with tools would not fit.
CURRICULUM = (
    (0.70, (512,)),
    (0.30, (512, 512, 512, 2048) * 3 + (512, 512, 512, 4096)),
)
COMPILED = (512,)
CHECKPOINT_SECONDS = 480


class Encoder:
    """Text to token ids, and the chance of each to be in the loss."""

    def __init__(self) -> None:
        self.tokenizer = Tokenizer.from_file(str(chat.MODEL / "tokenizer.json"))
        ids = self.tokenizer.encode
        self.header = ids("<|im_start|>assistant\n").ids
        self.no_thought = ids("<think>\n\n</think>\n\n").ids
        self.end_of_turn, self.end_of_text = ids("<|im_end|>").ids[0], ids(chat.END_OF_TEXT).ids[0]

    def __call__(self, text: str) -> tuple[list[int], list[float]]:
        ids = [*self.tokenizer.encode(text).ids, self.end_of_text]
        if not text.startswith("<|im_start|>"):
            return ids, [1.0] * len(ids)
        chances = [PROMPT_SHARE] * len(ids)
        at = 0
        while at < len(ids):
            if ids[at : at + len(self.header)] != self.header:
                at += 1
                continue
            at += len(self.header)
            if ids[at : at + len(self.no_thought)] == self.no_thought:
                after = at + len(self.no_thought)
                chances[at:after] = [0.0] * len(self.no_thought)  # the template writes this, not the model
                at = after
            end = ids.index(self.end_of_turn, at) + 1
            chances[at:end] = [1.0] * (end - at)
            at = end
        return ids, chances


Row = tuple[list[int], list[float], list[int]]


def rows(encode: Encoder, texts: Iterator[str], length: int, draw: random.Random) -> Iterator[Row]:
    """Packed rows of `length + 1` tokens: ids, chances and positions.

    A row holds whole documents and a little padding. In half of the rows positions skip
    ahead between documents, up to the last one the model has: far distances are learnt
    without paying for long sequences (PoSE, arXiv:2309.10400).
    """
    waiting: list[tuple[list[int], list[float]]] = []
    while True:
        ids: list[int] = []
        chances: list[float] = []
        positions: list[int] = []
        to_skip = draw.choice([0, POSITIONS - length - 1])
        misses = 0
        while misses < 32 and len(ids) < length + 1:
            while len(waiting) < 32:
                waiting.append(encode(next(texts)))
            document, chance = waiting.pop(0)
            if len(ids) + len(document) <= length + 1:
                skip = draw.randint(0, min(to_skip, 2 * POSITIONS // (1 + length // 100)))
                to_skip -= skip
                start = positions[-1] + 1 + skip if positions else skip
                ids += document
                chances += chance
                positions += range(start, start + len(document))
            else:
                misses += 1
                if len(document) <= length + 1:
                    waiting.append((document, chance))
        missing = length + 1 - len(ids)
        yield ids + [encode.end_of_text] * missing, chances + [0.0] * missing, positions + [POSITIONS - 1] * missing


def batch(packed: Iterator[Row], count: int) -> tuple[Tensor, Tensor, Tensor]:
    ids, chances, positions = zip(*(next(packed) for _ in range(count)), strict=True)
    return torch.tensor(ids), torch.tensor(chances), torch.tensor(positions)


Forward = Callable[[Tensor, Tensor], Tensor]


def loss_of(forward: Forward, model: Llama, ids: Tensor, chances: Tensor, positions: Tensor) -> Tensor:
    """Mean cross-entropy over the answers and a few of the other tokens.

    The head is the costliest part of a step here, so it sees only those positions.
    """
    with torch.autocast("cpu", torch.bfloat16):
        hidden = forward(ids[:, :-1], positions[:, :-1]).flatten(0, 1)
        wanted = (torch.rand(chances[:, 1:].shape) < chances[:, 1:]).flatten()
        logits = model.logits(hidden[wanted])
    return F.cross_entropy(logits.float(), ids[:, 1:].flatten()[wanted])


@torch.no_grad()
def held_out_accuracy(model: Llama, encode: Encoder, count: int) -> dict[str, float]:
    """Share of answers whose every token is the most likely one: greedy decoding would write just these."""
    scores: dict[str, list[bool]] = {}
    for task in generate.EVALUATED:
        documents = []
        for example in generate.held_out(task, count, seed=11):
            messages = [{k: v for k, v in m.items() if k != "reasoning_content"} for m in example.messages]
            ids, chances = encode(chat.render(messages, list(example.tools)))
            last = len(ids) - ids[::-1].index(encode.header[0])
            documents.append((ids, [w == 1.0 and at >= last for at, w in enumerate(chances)], example.task))
        longest = max(len(ids) for ids, _, _ in documents)
        padded = torch.tensor([ids + [encode.end_of_text] * (longest - len(ids)) for ids, _, _ in documents])
        with torch.autocast("cpu", torch.bfloat16):
            positions = torch.arange(longest - 1).expand(len(documents), -1)
            guesses = model.logits(model(padded[:, :-1], positions)).argmax(-1)
        for row, (ids, answer, name) in enumerate(documents):
            right = all(guesses[row, at - 1] == ids[at] for at in range(1, len(ids)) if answer[at])
            scores.setdefault(name, []).append(right)
    return {name: sum(rights) / len(rights) for name, rights in scores.items()}


def learning_rate(progress: float) -> float:
    """Warm up, hold, and go down to nothing over the last 60 % of the time. `progress` is 0 to 1."""
    if progress < 0.03:
        return progress / 0.03
    return 1.0 if progress < 0.4 else max(0.0, (1 - progress) / 0.6)


def sequence_length(progress: float, step: int) -> int:
    ends = list(itertools.accumulate(share for share, _ in CURRICULUM))
    lengths = CURRICULUM[min(bisect.bisect(ends, progress), len(ends) - 1)][1]
    return lengths[step % len(lengths)]


def export(model: Llama, encode: Encoder, folder: Path) -> None:
    """Weights in bfloat16 and the configuration, beside the tokenizer."""
    tensors = {name: p.detach().to(torch.bfloat16).contiguous() for name, p in model.named_parameters()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # safetensors writes it for the owner alone
    config = model.shape.config(encode.end_of_turn, encode.end_of_text)
    generation = {
        "do_sample": False,
        "eos_token_id": [encode.end_of_turn, encode.end_of_text],
        "pad_token_id": encode.end_of_text,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")


class Group:
    """Processes of one thread each, which average their gradients.

    On shared cores this beats two threads in one process: it waits once a step and
    not in every operation.
    """

    def __init__(self, rank: int, size: int, meeting_place: str) -> None:
        self.rank, self.size = rank, size
        if size > 1:
            distributed.init_process_group("gloo", f"file://{meeting_place}", rank=rank, world_size=size)

    def agree(self, value: float) -> float:
        """The first process's value."""
        if self.size == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64)
        distributed.broadcast(shared, 0)
        return shared.item()

    def average_gradients(self, model: Llama) -> None:
        if self.size == 1:
            return
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        parts = (flat / self.size).split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


@dataclass
class Run:
    """What a checkpoint holds."""

    model: Llama
    optimizers: list[torch.optim.Optimizer]
    spent: float = 0.0  # seconds
    step: int = 0

    def save(self, path: Path) -> None:
        states = [optimizer.state_dict() for optimizer in self.optimizers]
        partial = path.with_suffix(".partial")
        torch.save(
            {"model": self.model.state_dict(), "optimizers": states, "spent": self.spent, "step": self.step}, partial
        )
        partial.replace(path)

    def load(self, path: Path) -> None:
        saved = torch.load(path, weights_only=True)
        self.model.load_state_dict(saved["model"])
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.spent, self.step = saved["spent"], saved["step"]


def new_run(encode: Encoder, lr: float) -> Run:
    model = Llama(Shape(vocab_size=encode.tokenizer.get_vocab_size()))
    matrices = [p for name, p in model.named_parameters() if p.dim() == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.dim() != 2 or "embed" in name]
    muon = torch.optim.Muon(matrices, lr=lr, weight_decay=0.02, adjust_lr_fn="match_rms_adamw")
    return Run(model, [muon, torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.98), weight_decay=0.0)])


def report(model: Llama, encode: Encoder, count: int) -> None:
    scores = held_out_accuracy(model, encode, count)
    print("  ".join(f"{name} {score:.2f}" for name, score in scores.items()), flush=True)


def train(rank: int, options: argparse.Namespace, meeting_place: str) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    group = Group(rank, options.processes, meeting_place)
    encode = Encoder()
    run = new_run(encode, options.lr)
    if options.from_weights:
        tensors = load_file(options.from_weights / "model.safetensors")
        run.model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    if options.resume:
        run.load(options.checkpoint)
        run.spent = options.spent * 60 if options.spent is not None else run.spent
    model = run.model

    seed = 1_000_000 * (options.seed + 1) + 1000 * run.step + rank
    draw = random.Random(rank)
    lengths = {length for _, lengths in CURRICULUM for length in lengths}
    packed = {length: rows(encode, generate.documents(seed + length, length), length, draw) for length in lengths}
    compiled = torch.compile(model, dynamic=False) if options.compile else model
    budget = options.minutes * 60
    started, written, seen, recent = time.monotonic() - run.spent, time.monotonic(), 0, math.nan
    while True:
        run.spent = group.agree(time.monotonic() - started)
        if run.spent >= budget:
            break
        progress = run.spent / budget
        length = sequence_length(progress, run.step)
        ids, chances, positions = batch(packed[length], max(1, TOKENS_A_STEP // options.processes // length))
        loss = loss_of(compiled if length in COMPILED else model, model, ids, chances, positions)
        loss.backward()
        group.average_gradients(model)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in run.optimizers:
            for parameters in optimizer.param_groups:
                parameters["lr"] = options.lr * learning_rate(progress)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        run.step, seen = run.step + 1, seen + ids.numel() * options.processes
        recent = loss.item() if math.isnan(recent) else 0.95 * recent + 0.05 * loss.item()
        if rank:
            continue
        if run.step % 20 == 0:
            print(
                f"{run.spent / 60:5.1f} min  step {run.step}  length {length}  loss {recent:.4f}  {seen:,} tokens",
                flush=True,
            )
        if time.monotonic() - written > CHECKPOINT_SECONDS:
            run.save(options.checkpoint)
            report(model, encode, 25)
            written = time.monotonic()
    if rank == 0:
        run.save(options.checkpoint)
        export(model, encode, chat.MODEL)
        report(model, encode, 100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoint.pt"))
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--resume", action="store_true", help="go on from the checkpoint")
    start.add_argument(
        "--from-weights", type=Path, metavar="FOLDER", help="start from exported weights, not from nothing"
    )
    parser.add_argument(
        "--spent", type=float, metavar="MINUTES", help="with --resume: take this for the time already spent"
    )
    parser.add_argument("--export-only", action="store_true", help="export the checkpoint and stop")
    parser.add_argument(
        "--average",
        type=Path,
        metavar="FOLDER",
        help="with --export-only: the mean of the checkpoint and these weights",
    )
    parser.add_argument("--compile", action="store_true", help="needs a C++ compiler; a third faster")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lr", type=float, default=4e-3)
    options = parser.parse_args()
    if options.export_only:
        encode = Encoder()
        run = new_run(encode, options.lr)
        run.load(options.checkpoint)
        if options.average:
            older = load_file(options.average / "model.safetensors")
            run.model.load_state_dict({k: (v + older[k].float()) / 2 for k, v in run.model.state_dict().items()})
        export(run.model, encode, chat.MODEL)
        return
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(train, (options, f"{folder}/meeting"), nprocs=options.processes)


if __name__ == "__main__":
    main()
