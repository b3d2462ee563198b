"""Sampling a batch: our one operation against the same sampler as MLX operations (mlx-lm's).

Asks both sides in turn, and prints the median microseconds of each and the ratio of the medians.

    python bench/sampling.py [--rounds 5]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx
from mlx_lm.sample_utils import make_sampler

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[1]
REPEATS = 21
SAMPLERS: dict[str, dict[str, Any]] = {
    "greedy": {"temp": 0.0},
    "temperature": {"temp": 1.0},
    "top_k": {"temp": 1.0, "top_k": 40},
    "top_p": {"temp": 1.0, "top_p": 0.95},
    "min_p": {"temp": 1.0, "min_p": 0.05},
}
SIZES = [(1, 2048), (8, 2048), (1, 151936), (8, 151936)]


def peer(rows: int, vocab: int, name: str) -> float:
    """Median microseconds of mlx-lm's sampler, logits to tokens."""
    logits = mx.random.normal((rows, vocab), scale=3.0, key=mx.random.key(1))
    sampler: Callable[[mx.array], mx.array] = make_sampler(**SAMPLERS[name])
    times = []
    for _ in range(REPEATS):
        mx.eval(logits)
        start = time.perf_counter()
        # What its generator hands to a sampler.
        mx.eval(sampler(logits - mx.logsumexp(logits, axis=-1, keepdims=True)))
        times.append((time.perf_counter() - start) * 1e6)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    mx.set_default_device(mx.cpu)

    build = ["cargo", "bench", "--quiet", "--locked", "--bench", "sampling"]
    with subprocess.Popen(build, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as ours:
        assert ours.stdin is not None
        assert ours.stdout is not None
        print(f"{'rows, vocab':>14} {'sampler':<12} {'ours µs':>9} {'MLX ops µs':>11} {'ratio':>6}")
        for rows, vocab in SIZES:
            for name in SAMPLERS:
                mine, theirs = [], []
                for _ in range(rounds):
                    ours.stdin.write(f"{rows} {vocab} {name}\n")
                    ours.stdin.flush()
                    mine.append(float(ours.stdout.readline()))
                    theirs.append(peer(rows, vocab, name))
                a, b = statistics.median(mine), statistics.median(theirs)
                print(f"{f'{rows}, {vocab}':>14} {name:<12} {a:9.0f} {b:11.0f} {b / a:6.1f}")
        ours.stdin.close()


if __name__ == "__main__":
    main()
