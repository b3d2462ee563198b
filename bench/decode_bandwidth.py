"""Decoding beside the limit that memory sets: the bytes a token touches, over what the machine reads.

A token touches every number of these checkpoints: their embedding is the head as well. Keys and values
of the short context are left out. Servers and memory take turns.

    python bench/decode_bandwidth.py [--shape 90M-8bit]... [--rounds 5]
        [--out bench/results/decode-bandwidth.json]
"""

from __future__ import annotations

import argparse
import contextlib
import random
import statistics
import tempfile
from pathlib import Path

import random_models
import servers
from cpu_vs_peers import complete, decode
from figures import Figure, load, report
from memory_bandwidth import Reader
from serve_vs_mlx_lm import client, prompt_of

SHAPES = ["90M-8bit", "90M-bfloat16", "90M-float32"]
AIM = 0.75


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=random_models.SHAPES, action="append", help="default: three")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    arguments = parser.parse_args()
    generator = random.Random(1)
    reader = Reader()
    loads, bandwidth = [], []
    speeds: dict[str, list[float]] = {}
    sizes = {}
    with contextlib.ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        peers = {}
        for shape in arguments.shape or SHAPES:
            random_models.write(random_models.SHAPES[shape], root / shape)
            sizes[shape] = (root / shape / "model.safetensors").stat().st_size
            server = stack.enter_context(servers.mlxcel(root / shape, n_parallel=1))
            peers[shape] = stack.enter_context(client(server))
            complete(peers[shape], prompt_of(8, generator), 8)
        for _ in range(arguments.rounds):
            loads.append(load())
            for shape, peer in peers.items():
                bandwidth.append(reader.speed())
                speeds.setdefault(shape, []).append(decode(peer, generator))
    limit = statistics.median(bandwidth)
    print(f"memory: {limit / 1e9:.1f} GB/s")
    figures = []
    for shape, measured in speeds.items():
        speed = statistics.median(measured)
        print(f"{shape:14} {sizes[shape] / 1e6:6.0f} MB a token, {speed:7.1f} tok/s")
        figures.append(Figure(f"{shape}: decode over its limit", speed * sizes[shape] / limit, AIM))
    data = {"bytes a token": sizes, "bytes a second": bandwidth, "tok/s": speeds}
    report("Decoding over the limit of bandwidth", loads, figures, data, arguments.out)


if __name__ == "__main__":
    main()
