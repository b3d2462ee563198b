"""Trains mlxcel-tiny on what `generate.py` writes, and exports it to `mlxcel-tiny/`.

    python tiny-model/train.py --minutes 60

The learning rate and the sequence length follow the clock, not a step count: the
budget is what is fixed, whatever the machine is shared with. A checkpoint is
written every two minutes; `--resume` goes on from it with the time that is left.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

import chat
import generate
from model import Llama, Shape

PROMPT_SHARE = 0.1  # of the tokens that are not the model's to write, in the loss
TOKENS_A_STEP = 8192
# (share of the time, sequence length): mostly 512, then longer, so that every position is met.
CURRICULUM = ((0.90, 512), (0.07, 2048), (0.03, 8192))
CHECKPOINT_SECONDS = 120


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
                at += len(self.no_thought)  # the template writes this, not the model
            end = ids.index(self.end_of_turn, at) + 1
            chances[at:end] = [1.0] * (end - at)
            at = end
        return ids, chances


def rows(encode: Encoder, texts: Iterator[str], length: int) -> Iterator[tuple[list[int], list[float]]]:
    """Packed rows of `length + 1` tokens, each of whole documents and a little padding."""
    waiting: list[tuple[list[int], list[float]]] = []
    while True:
        ids: list[int] = []
        chances: list[float] = []
        while len(waiting) < 32:
            waiting.append(encode(next(texts)))
        misses = 0
        while misses < 32 and len(ids) < length + 1:
            document = waiting.pop(0)
            if len(ids) + len(document[0]) <= length + 1:
                ids += document[0]
                chances += document[1]
                waiting.append(encode(next(texts)))
            else:
                if len(document[0]) <= length + 1:
                    waiting.append(document)
                misses += 1
                if len(waiting) < 32:
                    waiting.append(encode(next(texts)))
        missing = length + 1 - len(ids)
        yield ids + [encode.end_of_text] * missing, chances + [0.0] * missing


def batch(packed: Iterator[tuple[list[int], list[float]]], count: int) -> tuple[Tensor, Tensor]:
    ids, chances = zip(*(next(packed) for _ in range(count)), strict=True)
    return torch.tensor(ids), torch.tensor(chances)


def loss_of(forward: Callable[[Tensor], Tensor], model: Llama, ids: Tensor, chances: Tensor) -> Tensor:
    """Mean cross-entropy over the answers and a few of the other tokens.

    The head is the costliest part of a step here, so it sees only those positions.
    """
    with torch.autocast("cpu", torch.bfloat16):
        hidden = forward(ids[:, :-1]).flatten(0, 1)
        wanted = (torch.rand(chances[:, 1:].shape) < chances[:, 1:]).flatten()
        logits = model.logits(hidden[wanted])
    return F.cross_entropy(logits.float(), ids[:, 1:].flatten()[wanted])


@torch.no_grad()
def held_out_accuracy(model: Llama, encode: Encoder, count: int) -> dict[str, float]:
    """Share of answers whose every token is the most likely one: greedy decoding would write just these."""
    scores: dict[str, list[bool]] = {}
    for task in generate.EVALUATED:
        documents = []
        for example in generate.held_out(task, count, seed=2):
            messages = [{k: v for k, v in m.items() if k != "reasoning_content"} for m in example.messages]
            ids, chances = encode(chat.render(messages, list(example.tools)))
            last = len(ids) - ids[::-1].index(encode.header[0])
            documents.append((ids, [w == 1.0 and at >= last for at, w in enumerate(chances)], example.task))
        longest = max(len(ids) for ids, _, _ in documents)
        padded = torch.tensor([ids + [encode.end_of_text] * (longest - len(ids)) for ids, _, _ in documents])
        with torch.autocast("cpu", torch.bfloat16):
            guesses = model.logits(model(padded[:, :-1])).argmax(-1)
        for row, (ids, answer, name) in enumerate(documents):
            right = all(guesses[row, at - 1] == ids[at] for at in range(1, len(ids)) if answer[at])
            scores.setdefault(name, []).append(right)
    return {name: sum(rights) / len(rights) for name, rights in scores.items()}


def learning_rate(progress: float) -> float:
    """Warm up, hold, and go down to nothing over the last 60 % of the time. `progress` is 0 to 1."""
    if progress < 0.02:
        return progress / 0.02
    return 1.0 if progress < 0.4 else max(0.0, (1 - progress) / 0.6)


def sequence_length(progress: float) -> int:
    reached = 0.0
    for share, length in CURRICULUM:
        reached += share
        if progress < reached:
            return length
    return CURRICULUM[-1][1]


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoint.pt"))
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--export-only", action="store_true", help="export the checkpoint and stop")
    parser.add_argument("--compile", action="store_true", help="needs a C++ compiler; a quarter faster here")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lr", type=float, default=4e-3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)

    encode = Encoder()
    model = Llama(Shape(vocab_size=encode.tokenizer.get_vocab_size()))
    matrices = [p for name, p in model.named_parameters() if p.dim() == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.dim() != 2 or "embed" in name]
    optimizers = [
        torch.optim.Muon(matrices, lr=options.lr, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=options.lr, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    spent, step = 0.0, 0
    if options.resume or options.export_only:
        saved = torch.load(options.checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        for optimizer, state in zip(optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        spent, step = saved["spent"], saved["step"]
    if options.export_only:
        export(model, encode, chat.MODEL)
        return
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters", flush=True)

    texts = generate.documents(seed=options.seed * 1_000_000 + step + 1)
    packed = {length: rows(encode, texts, length) for _, length in CURRICULUM}
    budget = options.minutes * 60
    fast = torch.compile(model) if options.compile else model
    started, written, seen, recent = time.monotonic() - spent, time.monotonic(), 0, math.nan
    while (spent := time.monotonic() - started) < budget:
        progress = spent / budget
        length = sequence_length(progress)
        ids, chances = batch(packed[length], TOKENS_A_STEP // length)
        loss = loss_of(fast if length == CURRICULUM[0][1] else model, model, ids, chances)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = options.lr * learning_rate(progress)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        step, seen = step + 1, seen + ids.numel()
        recent = loss.item() if math.isnan(recent) else 0.95 * recent + 0.05 * loss.item()
        if step % 20 == 0:
            print(
                f"{spent / 60:5.1f} min  step {step}  length {length}  loss {recent:.4f}  {seen / (time.monotonic() - started):.0f} tok/s",
                flush=True,
            )
        if time.monotonic() - written > CHECKPOINT_SECONDS:
            state = {
                "model": model.state_dict(),
                "optimizers": [o.state_dict() for o in optimizers],
                "spent": spent,
                "step": step,
            }
            partial = options.checkpoint.with_suffix(".partial")
            torch.save(state, partial)
            partial.replace(options.checkpoint)
            scores = held_out_accuracy(model, encode, 40)
            print("  ".join(f"{name} {score:.2f}" for name, score in scores.items()), flush=True)
            written = time.monotonic()
    export(model, encode, chat.MODEL)
    for name, score in held_out_accuracy(model, encode, 200).items():
        print(f"{name:24} {score:.3f}")


if __name__ == "__main__":
    main()
