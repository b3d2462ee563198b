"""Decode and prefill of one stream over HTTP, against mlx_lm.server on the same weights.

Both servers run at once and are asked in turn, so that what else the machine does meets both.
Prints for each the median tok/s and the ratio of the medians.

    python bench/serve_vs_mlx_lm.py [--model FOLDER | --shape 2M] [--rounds 5]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import random_models
import servers

if TYPE_CHECKING:
    from collections.abc import Iterator

DECODE_TOKENS = 128
PROMPT_WORDS = 400


@dataclass(frozen=True)
class Peer:
    """A server and a client for it."""

    name: str
    client: httpx2.Client
    model: str


@dataclass(frozen=True)
class Run:
    """One streamed completion. Speeds are tokens a second."""

    prompt_tokens: int
    completion_tokens: int
    ttft: float
    decode: float

    @property
    def prefill_speed(self) -> float:
        return self.prompt_tokens / self.ttft

    @property
    def decode_speed(self) -> float:
        return (self.completion_tokens - 1) / self.decode


def measure(server: Peer, prompt: str, max_tokens: int) -> Run:
    """Streams one greedy completion; TTFT is the wait for the first chunk of the stream."""
    body = {
        "model": server.model,
        "prompt": prompt,
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    start = time.perf_counter()
    first = last = 0.0
    usage = None
    with server.client.stream("POST", "completions", json=body) as response:
        if response.status_code != 200:
            raise SystemExit(f"{server.name}: {response.status_code} {response.read().decode()}")
        for line in response.iter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            chunk = json.loads(line.removeprefix("data: "))
            usage = chunk.get("usage") or usage
            if chunk.get("choices"):
                last = time.perf_counter()
                first = first or last
    if usage is None:
        raise SystemExit(f"{server.name} sent no usage")
    return Run(usage["prompt_tokens"], usage["completion_tokens"], first - start, last - first)


def prompt_of(words: int, generator: random.Random) -> str:
    """Words that no earlier prompt had, so that no prefix cache helps."""
    return " ".join(str(generator.randrange(1000)) for _ in range(words))


@contextlib.contextmanager
def client(server: servers.Server) -> Iterator[Peer]:
    with httpx2.Client(
        base_url=server.base_url, headers=server.headers, timeout=600, trust_env=False
    ) as client:
        yield Peer(server.name, client, server.model)


def compare(folder: Path, rounds: int) -> None:
    generator = random.Random(1)
    with (
        servers.mlxcel(folder) as ours,
        servers.mlx_lm(folder) as theirs,
        client(ours) as left,
        client(theirs) as right,
    ):
        peers = (left, right)
        decode: dict[str, list[float]] = {server.name: [] for server in peers}
        prefill: dict[str, list[float]] = {server.name: [] for server in peers}
        for server in peers:
            measure(server, prompt_of(8, generator), 8)
        for _ in range(rounds):
            short, long = prompt_of(8, generator), prompt_of(PROMPT_WORDS, generator)
            for server in peers:
                decode[server.name].append(measure(server, short, DECODE_TOKENS).decode_speed)
                prefill[server.name].append(measure(server, long, 2).prefill_speed)
    for what, speeds in (("decode", decode), ("prefill", prefill)):
        mine, theirs = (statistics.median(speeds[server.name]) for server in peers)
        ratio = mine / theirs
        print(f"{what:8} mlxcel {mine:8.1f} tok/s   mlx_lm.server {theirs:8.1f} tok/s   {ratio:5.2f}x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="a checkpoint; default: a random one of --shape")
    parser.add_argument("--shape", choices=random_models.SHAPES, default="2M")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.model
        if folder is None:
            folder = Path(temporary) / arguments.shape
            random_models.write(random_models.SHAPES[arguments.shape], folder)
        print(f"{folder.name}, one stream, float32 on {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        compare(folder, arguments.rounds)


if __name__ == "__main__":
    main()
