"""From exec to healthy with a file of more than a gigabyte, beside one read of it from the page cache.

What the built-in model takes is taken off. The file is read by as many threads as the server has, a
megabyte at a time; before the first round it is in the cache. Peak memory is the kernel's (VmHWM),
after a few tokens, beside the weights and one step of keys and values. The first request's token, and
those of three that follow with other prompts as long, tell what loading leaves to the first one.

    python bench/load_time.py [--shape 600M-bfloat16] [--binary FILE] [--rounds 5]
        [--out bench/results/load-time.json]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import random_models
from figures import Figure, load, report
from server_start import BINARY, ask

PIECE = 1 << 20
# Positions that a cache is allocated for at once.
STEP = 256
REQUESTS = 4
TIME_AIM, MEMORY_AIM, ALLOWED = 1.3, 1.2, 60e6


@dataclass(frozen=True)
class Start:
    """Seconds from exec to healthy, those of each request's one token, and bytes of memory at most."""

    healthy: float
    tokens: list[float]
    peak: int


def one_token(path: Path, prompt: list[int]) -> float:
    """Seconds that a request for one token takes."""
    begin = time.perf_counter()
    status, answer = ask(path, "POST", "/v1/completions", {"prompt": prompt, "max_tokens": 1})
    body = answer.read()
    answer.close()
    if status != 200:
        raise SystemExit(body.decode())
    return time.perf_counter() - begin


def start(binary: Path, model: str | Path, path: Path) -> Start:
    """Starts a server, asks it a few times, and ends it."""
    begin = time.perf_counter()
    process = subprocess.Popen(
        [binary, "serve", "-m", model, "--host", path, "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        while ask(path, "GET", "/health")[0] != 200:
            time.sleep(0.0005)
        healthy = time.perf_counter() - begin
        # Prompts that begin differently: the prefix cache has no part in it.
        tokens = [one_token(path, [first, 400, 500, 600]) for first in range(300, 300 + REQUESTS)]
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
        process.terminate()
        process.wait(30)
    finally:
        process.kill()
        process.wait()
    return Start(healthy, tokens, peak)


def read(path: Path, threads: int) -> float:
    """Seconds that the threads take to read the file once."""
    size = path.stat().st_size
    share = -(-size // threads)

    def part(index: int) -> None:
        buffer = memoryview(bytearray(PIECE))
        at, end = index * share, min((index + 1) * share, size)
        with path.open("rb", buffering=0) as file:
            while at < end:
                at += os.preadv(file.fileno(), [buffer[: end - at]], at)

    with ThreadPoolExecutor(threads) as pool:
        begin = time.perf_counter()
        list(pool.map(part, range(threads)))
        return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=random_models.SHAPES, default="600M-bfloat16")
    parser.add_argument("--binary", type=Path, default=BINARY)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    arguments = parser.parse_args()
    shape = random_models.SHAPES[arguments.shape]
    threads = len(os.sched_getaffinity(0))
    loads, peaks = [], []
    seconds: dict[str, list[float]] = {
        "healthy": [],
        "healthy, mlxcel-tiny": [],
        "one read": [],
        "first token": [],
        "later tokens": [],
    }
    with tempfile.TemporaryDirectory() as temporary:
        folder, socket = Path(temporary) / arguments.shape, Path(temporary) / "s.sock"
        random_models.write(shape, folder)
        file = folder / "model.safetensors"
        size = file.stat().st_size
        read(file, threads)
        for _ in range(arguments.rounds):
            loads.append(load())
            seconds["one read"].append(read(file, threads))
            large = start(arguments.binary, folder, socket)
            seconds["healthy"].append(large.healthy)
            seconds["first token"].append(large.tokens[0])
            seconds["later tokens"].append(statistics.median(large.tokens[1:]))
            peaks.append(large.peak)
            tiny = start(arguments.binary, "mlxcel-tiny", socket)
            seconds["healthy, mlxcel-tiny"].append(tiny.healthy)
    medians = {what: statistics.median(values) for what, values in seconds.items()}
    print(f"{size / 1e9:.2f} GB, {threads} threads")
    for what, median in medians.items():
        print(f"{what:22} {median * 1000:7.1f} ms")
    cache = STEP * shape.layers * 2 * shape.kv_heads * (shape.hidden // shape.heads) * 4
    peak = statistics.median(peaks)
    print(f"{'peak memory':22} {peak / 1e6:7.1f} MB")
    figures = [
        Figure(
            "load of a large file over one read of it",
            (medians["healthy"] - medians["healthy, mlxcel-tiny"]) / medians["one read"],
            TIME_AIM,
            at_most=True,
        ),
        Figure(
            "peak memory less 60 MB over weights and cache",
            (peak - ALLOWED) / (size + cache),
            MEMORY_AIM,
            at_most=True,
        ),
    ]
    data = {"bytes": size, "seconds": seconds, "peak bytes": peaks}
    report("Loading a large file", loads, figures, data, arguments.out)


if __name__ == "__main__":
    main()
