"""Host time of a decode step, that is building its graph without computing it: ours in Rust against
mlx-lm's in Python on the same checkpoint.

Asks both sides in turn, and prints the median microseconds of each and the ratio of the medians.

    python bench/host_step.py [--shape 2M] [--rounds 9]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import mlx.core as mx
import random_models
from mlx_lm import load
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.sample_utils import make_sampler

ROOT = Path(__file__).parents[1]
REPEATS = 201
PAST = 100


class Peer:
    """mlx-lm with a past of `PAST` tokens, ready for one more."""

    def __init__(self, folder: Path) -> None:
        self._model = load(str(folder))[0]
        self._cache = make_prompt_cache(self._model)
        self._sampler = make_sampler(temp=0.0)
        mx.eval(self._model(mx.arange(PAST)[None], cache=self._cache))
        mx.eval([layer.state for layer in self._cache])

    def step(self) -> float:
        """Median microseconds of what its generator does between two tokens, but for `eval`."""
        times = []
        token = mx.array([1])
        mx.eval(token)
        for _ in range(REPEATS):
            past = [(layer.keys, layer.values, layer.offset) for layer in self._cache]
            start = time.perf_counter()
            logits = self._model(token[None], cache=self._cache)[:, -1, :]
            chosen = self._sampler(logits - mx.logsumexp(logits, keepdims=True))
            times.append((time.perf_counter() - start) * 1e6)
            del logits, chosen
            for layer, state in zip(self._cache, past, strict=True):
                layer.keys, layer.values, layer.offset = state
        return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shape", choices=random_models.SHAPES, default="2M")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    mx.set_default_device(mx.cpu)

    build = ["cargo", "bench", "--quiet", "--locked", "--bench", "host_step"]
    with (
        tempfile.TemporaryDirectory() as temporary,
        subprocess.Popen(build, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as ours,
    ):
        assert ours.stdin is not None
        assert ours.stdout is not None
        folder = Path(temporary) / arguments.shape
        random_models.write(random_models.SHAPES[arguments.shape], folder)
        peer = Peer(folder)
        print(f"{arguments.shape} on {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        ours.stdin.write(f"{folder}\n")
        mine, theirs = [], []
        for _ in range(arguments.rounds):
            ours.stdin.write("step\n")
            ours.stdin.flush()
            mine.append(float(ours.stdout.readline()))
            theirs.append(peer.step())
        ours.stdin.close()
        a, b = statistics.median(mine), statistics.median(theirs)
        print(f"µs a step: mlxcel {a:.0f}, mlx-lm {b:.0f}: {a / b:.3f} of it")


if __name__ == "__main__":
    main()
