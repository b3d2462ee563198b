"""Decode and prefill on the CPU against mlx_lm.server and llama.cpp, on one shape.

All run at once and are asked in turn; the answer is medians, their ratios and the load of the
machine. llama.cpp runs in an environment of its own (`pip install llama-cpp-python gguf`), without a
server around it. Its weights are random too, in the format of its own that comes closest.

    python bench/cpu_vs_peers.py [--llama-python ENV/bin/python] [--shape 90M-4bit] [--scales bfloat16]
        [--rounds 5] [--out bench/results/cpu.json]
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import random
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import figures
import random_models
import servers
from figures import Figure
from serve_vs_mlx_lm import DECODE_TOKENS, Peer, client, prompt_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Speed = Callable[[str, int], float]

KINDS = {4: "q4_0", 8: "q8_0", None: "f32"}
PREFILL_WORDS = 128
# What is measured, over whom, with which scales.
AIMS = {
    ("decode", "mlx_lm.server", "float32"): 18.0,
    ("decode", "mlx_lm.server", "bfloat16"): 150.0,
    ("prefill", "mlx_lm.server", "float32"): 40.0,
    ("prefill", "mlx_lm.server", "bfloat16"): 40.0,
    ("decode", "llama.cpp", "float32"): 0.7,
    ("decode", "llama.cpp", "bfloat16"): 0.7,
    ("prefill", "llama.cpp", "float32"): 0.5,
    ("prefill", "llama.cpp", "bfloat16"): 0.5,
}


@contextlib.contextmanager
def llama(python: Path, shape: random_models.Shape, threads: int) -> Iterator[Speed]:
    numbers = (shape.hidden, shape.layers, shape.heads, shape.kv_heads, shape.mlp, shape.vocab)
    worker = Path(__file__).with_name("llama_peer.py")
    command = [python, worker, *map(str, numbers), KINDS[shape.bits], str(threads)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None

    def ask(what: str, count: int) -> float:
        print(what, count, file=process.stdin, flush=True)
        return float(process.stdout.readline())

    try:
        if process.stdout.readline() != "ready\n":
            raise SystemExit("llama.cpp did not start")
        yield ask
    finally:
        process.stdin.close()
        process.wait()


def complete(server: Peer, prompt: str, tokens: int) -> tuple[float, int, int]:
    """Seconds of one greedy completion, and the tokens of the prompt and of the answer."""
    body = {"model": server.model, "prompt": prompt, "max_tokens": tokens, "temperature": 0}
    body |= random_models.SAME_TOKEN
    start = time.perf_counter()
    response = server.client.post("completions", json=body)
    took = time.perf_counter() - start
    if response.status_code != 200:
        raise SystemExit(f"{server.name}: {response.status_code} {response.text}")
    usage = response.json()["usage"]
    return took, usage["prompt_tokens"], usage["completion_tokens"]


def decode(server: Peer, generator: random.Random) -> float:
    """Tokens a second behind the first one: a stream of random bytes has too few chunks to count."""
    first, _, _ = complete(server, prompt_of(8, generator), 1)
    took, _, count = complete(server, prompt_of(8, generator), DECODE_TOKENS + 1)
    if count != DECODE_TOKENS + 1:
        raise SystemExit(f"{server.name} answered with {count} tokens")
    return DECODE_TOKENS / (took - first)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--llama-python", type=Path, help="a Python with llama-cpp-python and gguf; without it no llama.cpp"
    )
    parser.add_argument("--shape", choices=random_models.SHAPES, default="90M-4bit")
    parser.add_argument("--scales", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--without-mlx-lm", action="store_true", help="llama.cpp only: quick")
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    arguments = parser.parse_args()
    shape = dataclasses.replace(random_models.SHAPES[arguments.shape], dtype=arguments.scales)
    threads = len(os.sched_getaffinity(0))
    generator = random.Random(1)
    speeds: dict[str, dict[str, list[float]]] = {"decode": {}, "prefill": {}}
    loads = []
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        folder = Path(temporary) / arguments.shape
        random_models.write(shape, folder)
        started = [stack.enter_context(servers.mlxcel(folder))]
        if not arguments.without_mlx_lm:
            started.append(stack.enter_context(servers.mlx_lm(folder)))
        peers = [stack.enter_context(client(server)) for server in started]
        llama_cpp = None
        if arguments.llama_python:
            llama_cpp = stack.enter_context(llama(arguments.llama_python, shape, threads))
            llama_cpp("decode", 8)
        for server in peers:
            complete(server, prompt_of(8, generator), 8)
        for _ in range(arguments.rounds):
            loads.append(figures.load())
            for server in peers:
                speeds["decode"].setdefault(server.name, []).append(decode(server, generator))
                took, prompt_tokens, _ = complete(server, prompt_of(PREFILL_WORDS, generator), 1)
                speeds["prefill"].setdefault(server.name, []).append(prompt_tokens / took)
            if llama_cpp:
                speeds["decode"].setdefault("llama.cpp", []).append(llama_cpp("decode", DECODE_TOKENS))
                speeds["prefill"].setdefault("llama.cpp", []).append(llama_cpp("prefill", prompt_tokens))
    found = []
    for what, by_name in speeds.items():
        medians = {name: statistics.median(values) for name, values in by_name.items()}
        for name, median in medians.items():
            print(f"{what:8} {name:14} {median:9.1f} tok/s")
        ours = medians.pop("mlxcel")
        found += [
            Figure(f"{what} over {name}", ours / median, AIMS[what, name, arguments.scales])
            for name, median in medians.items()
        ]
    title = f"{arguments.shape}, {arguments.scales}"
    figures.report(title, loads, found, {"tok/s": speeds}, arguments.out)


if __name__ == "__main__":
    main()
