"""Sixteen streams together, against mlx_lm.server and llama.cpp's batched decode, on a float32 model.

The servers get sixteen requests at once and answer each as a whole: what reads the answers is not the limit.
llama.cpp decodes batches of sixteen sequences in its own process, from the weights of the same shape
(see cpu_vs_peers.py). Prefill of the servers' short prompts counts against them.

    python bench/many_streams.py [--llama-python ENV/bin/python] [--shape 16M] [--rounds 5]
        [--without-mlx-lm] [--out bench/results/many-streams.json]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import random_models
import servers
from cpu_vs_peers import complete, llama
from figures import Figure, load, report
from serve_vs_mlx_lm import Peer, client, prompt_of

STREAMS, TOKENS = 16, 64
AIMS = {"mlx_lm.server": 15.0, "llama.cpp": 0.4}


def together(server: Peer, generator: random.Random) -> float:
    """Tokens a second of all streams."""
    prompts = [prompt_of(8, generator) for _ in range(STREAMS)]
    with ThreadPoolExecutor(STREAMS) as pool:
        start = time.perf_counter()
        answers = list(pool.map(lambda prompt: complete(server, prompt, TOKENS), prompts))
        return sum(tokens for _, _, tokens in answers) / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--llama-python", type=Path, help="as in cpu_vs_peers.py; without it no llama.cpp")
    parser.add_argument("--shape", choices=random_models.SHAPES, default="16M")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--without-mlx-lm", action="store_true")
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    arguments = parser.parse_args()
    shape = random_models.SHAPES[arguments.shape]
    generator = random.Random(1)
    loads = []
    speeds: dict[str, list[float]] = {}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) / arguments.shape
        random_models.write(shape, folder)
        started = [stack.enter_context(servers.mlxcel(folder, n_parallel=STREAMS))]
        if not arguments.without_mlx_lm:
            started.append(stack.enter_context(servers.mlx_lm(folder)))
        peers = [stack.enter_context(client(server)) for server in started]
        llama_cpp = None
        if arguments.llama_python:
            threads = len(os.sched_getaffinity(0))
            llama_cpp = stack.enter_context(llama(arguments.llama_python, shape, threads))
            llama_cpp("streams", 8)
        for server in peers:
            complete(server, prompt_of(8, generator), 8)
        for _ in range(arguments.rounds):
            loads.append(load())
            for server in peers:
                speeds.setdefault(server.name, []).append(together(server, generator))
            if llama_cpp:
                speeds.setdefault("llama.cpp", []).append(llama_cpp("streams", TOKENS))
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    for name, median in medians.items():
        print(f"{name:14} {median:9.1f} tok/s")
    ours = medians.pop("mlxcel")
    figures = [
        Figure(f"{arguments.shape}, {STREAMS} streams over {name}", ours / median, AIMS[name])
        for name, median in medians.items()
    ]
    report(f"{STREAMS} streams together", loads, figures, {"tok/s": speeds}, arguments.out)


if __name__ == "__main__":
    main()
