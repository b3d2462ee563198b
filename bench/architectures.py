"""Every architecture against mlx-lm on the same small model: decoding, and operations a token.

The models are those of the parity tests, four times as wide, in float32 and in 4 bits. Decoding is
that of one stream: ours through the server over HTTP, theirs in this process without a server, asked in
turn. Operations are the nodes of the graph that one more token takes, up to the logits and the
states: what MLX is asked for and what it computes, views included.

Prints both, and the ratio of the medians; `--out` keeps them for scripts/models_table.py.

    python bench/architectures.py [--only llama qwen3 …] [--rounds 5] [--out bench/results/architectures.json]
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import servers
from mlx.utils import tree_flatten
from mlx_lm import stream_generate
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.utils import load_model
from transformers import PreTrainedTokenizerFast

if TYPE_CHECKING:
    from collections.abc import Callable

    from servers import Server

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "python" / "tests" / "parity")]

from checkpoints import VOCAB, Family  # noqa: E402
from models_table import registered  # noqa: E402

TOKENS, PROMPT = 128, 16
# As in benches/host_step.rs.
PAST = 100
WIDER = 4
# What makes a layer wide, in the words of all architectures.
WIDTHS = re.compile(
    r"hidden_size|dim_model|block_dim|block_ff_dim|q_lora_rank|kv_lora_rank|.*intermediate_size|num_heads"
    r"|.*attention_heads|.*key_value_heads|num_query_groups|.*_n_heads|.*mamba_num_heads|linear_num_\w+_heads"
)


def wider(config: dict[str, Any]) -> dict[str, Any]:
    """The same with more heads and features."""

    def value(key: str, old: Any) -> Any:
        if isinstance(old, dict):
            return wider(old)
        return old * WIDER if isinstance(old, int) and WIDTHS.fullmatch(key) else old

    return {key: value(key, old) for key, old in config.items()}


def operations(dot: str) -> Counter[str]:
    """How often each operation stands in a graph."""
    return Counter(re.findall(r'\[label ="([^"]*)", shape=rectangle\]', dot))


def counter() -> list[str]:
    """The command that builds our steps, compiled."""
    build = ["cargo", "bench", "--locked", "--no-run", "--bench", "host_step", "--message-format", "json"]
    messages = subprocess.run(build, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    built = [json.loads(line) for line in messages.splitlines()]
    return [it["executable"] for it in built if it.get("target", {}).get("name") == "host_step"]


def our_operations(command: list[str], folder: Path) -> Counter[str]:
    dot = folder / "ours.dot"
    asked = f"{folder}\ngraph {dot}\n"
    subprocess.run(command, input=asked, text=True, check=True, capture_output=True)
    return operations(dot.read_text())


def arrays(cache: list[Any]) -> list[mx.array]:
    """What the layers keep."""
    leaves = tree_flatten([layer.state for layer in cache])
    return [leaf for _, leaf in leaves if isinstance(leaf, mx.array)]


class Peer:
    """mlx-lm's model and tokenizer of a folder."""

    def __init__(self, folder: Path) -> None:
        self._model: Any = load_model(folder)[0]
        file = str(folder / "tokenizer.json")
        self._tokenizer = TokenizerWrapper(PreTrainedTokenizerFast(tokenizer_file=file))
        self._folder = folder

    def operations(self) -> Counter[str]:
        cache = make_prompt_cache(self._model)
        mx.eval(self._model(mx.arange(PAST)[None], cache=cache))
        token = mx.array([[1]])
        mx.eval(token, arrays(cache))
        logits = self._model(token, cache=cache)[:, -1, :]
        dot = self._folder / "theirs.dot"
        mx.export_to_dot(str(dot), logits, *arrays(cache))
        return operations(dot.read_text())

    def generate(self, prompt: list[int]) -> int:
        return len(list(stream_generate(self._model, self._tokenizer, prompt, max_tokens=TOKENS)))


def ask(server: Server, prompt: list[int]) -> int:
    body = {"model": server.model, "prompt": prompt, "max_tokens": TOKENS, "temperature": 0}
    request = urllib.request.Request(
        f"{server.base_url}/completions",
        json.dumps(body).encode(),
        {**server.headers, "Content-Type": "application/json"},
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as response:
        return int(json.load(response)["usage"]["completion_tokens"])


def speeds(sides: list[Callable[[list[int]], int]], rounds: int) -> list[float]:
    """Median tokens a second of each side; every prompt is new to both."""
    draw = random.Random(1)
    found: list[list[float]] = [[] for _ in sides]
    for round_ in range(rounds + 1):
        for side, figures in zip(sides, found, strict=True):
            prompt = [draw.randrange(VOCAB) for _ in range(PROMPT)]
            start = time.perf_counter()
            tokens = side(prompt)
            if round_ > 0:
                figures.append(tokens / (time.perf_counter() - start))
    return [statistics.median(figures) for figures in found]


def measure(command: list[str], family: Family, kind: str, rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        larger = Family(wider(dict(family.config)), family.draws, family.seed)
        recipe = larger.dense() if kind == "float32" else larger.quantized(4)
        recipe(folder)
        peer = Peer(folder)
        ours, theirs = our_operations(command, folder), peer.operations()
        figures: dict[str, Any] = {"operations": [ours.total(), theirs.total()]}
        figures["more of"] = {
            name: [count, theirs[name]] for name, count in ours.items() if count > theirs[name]
        }
        if rounds:
            with servers.mlxcel(folder, n_parallel=1) as server:
                pair = speeds([lambda prompt: ask(server, prompt), peer.generate], rounds)
            figures["tok/s"] = [round(it, 1) for it in pair]
        return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", nargs="+", metavar="TYPE", help="these architectures")
    parser.add_argument("--rounds", type=int, default=5, help="0: only operations")
    parser.add_argument("--out", type=Path, help="JSON to be written, or to be added to")
    arguments = parser.parse_args()
    mx.set_default_device(mx.cpu)
    command = counter()
    kept = json.loads(arguments.out.read_text()) if arguments.out and arguments.out.exists() else {}
    for name in arguments.only or registered():
        family = importlib.import_module(f"families.{name}").FAMILY
        for kind in ("float32", "4-bit"):
            figures = measure(command, family, kind, arguments.rounds)
            ours, theirs = figures["operations"]
            line = f"{name:18} {kind:8} operations {ours:4} / {theirs:4} = {ours / theirs:.2f}"
            if "tok/s" in figures:
                ours, theirs = figures["tok/s"]
                line += f"   tok/s {ours:7,.0f} / {theirs:6,.0f} = {ours / theirs:5.2f}"
            print(line, flush=True)
            figures["load"] = round(os.getloadavg()[0], 1)
            kept.setdefault(name, {})[kind] = figures
            if arguments.out:
                # A line for each architecture.
                rows = [f"{json.dumps(name)}: {json.dumps(kept[name])}" for name in sorted(kept)]
                arguments.out.write_text("{\n" + ",\n".join(rows) + "\n}\n")


if __name__ == "__main__":
    main()
