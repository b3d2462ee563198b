"""Decoding over a long context beside a short one, with the cache as computed and in fewer bits.

All servers run at once and are asked in turn. Printed are the median milliseconds a token over the rounds,
the speed over the long context relative to the same server's over the short one (aim: 0.6), and what that
would be if memory alone were the limit: the bytes a token touches at both ends.

    python bench/long_context.py [--shape 90M-4bit] [--long 8100] [--rounds 5]
        [--out bench/results/long-context.json]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import tempfile
from pathlib import Path

import random_models
import servers
from figures import Figure, load, report
from load.client import body, send
from load.prompts import Prompts
from load.run import Target

SHORT, TOKENS, AIM = 128, 48, 0.6
CACHES: dict[str, list[str]] = {
    "float32": [],
    "16 bits": ["--kv-bits", "16"],
    "8 bits": ["--kv-bits", "8"],
    "4 bits": ["--kv-bits", "4"],
}
# Bits of a number; where they are few, a float32 scale and bias for 64 of them are shared out.
BITS = {"float32": 32, "16 bits": 16, "8 bits": 9, "4 bits": 5}


async def token_ms(target: Target, prompt: str) -> float:
    """Median milliseconds between two tokens after the first few."""
    async with target.session() as session:
        request = body("completions", target.model, prompt, TOKENS, random_models.SAME_TOKEN)
        record = await send(session, target.url, request)
    if not record.ok:
        raise SystemExit(record.error)
    return 1000 * statistics.median(record.itl[4:])


def position_bytes(shape: random_models.Shape, cache: str) -> float:
    """Bytes of a position's keys and values."""
    numbers = 2 * shape.layers * shape.kv_heads * (shape.hidden // shape.heads)
    return numbers * BITS[cache] / 8


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=random_models.SHAPES, default="90M-4bit")
    parser.add_argument("--long", type=int, default=8100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cache", choices=CACHES, action="append", help="repeat for several; default: all")
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    arguments = parser.parse_args()
    caches = arguments.cache or list(CACHES)
    prompts = Prompts(random_models.TINY, seed=1)
    # The same text each time: only the first request computes it.
    lengths = {SHORT: prompts.draw(SHORT), arguments.long: prompts.draw(arguments.long)}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) / arguments.shape
        shape = random_models.SHAPES[arguments.shape]
        random_models.write(shape, folder)
        weights = (folder / "model.safetensors").stat().st_size
        targets = {}
        for cache in caches:
            server = stack.enter_context(servers.mlxcel(folder, extra_args=CACHES[cache], n_parallel=1))
            targets[cache] = Target(server.base_url, server.model, server.headers)
        times: dict[tuple[str, int], list[float]] = {}
        loads = []
        for turn in range(arguments.rounds + 1):
            loads.append(load())
            for cache, target in targets.items():
                for length, prompt in lengths.items():
                    spent = await token_ms(target, prompt)
                    if turn:
                        times.setdefault((cache, length), []).append(spent)
    figures = []
    for cache in caches:
        short, long = (statistics.median(times[cache, length]) for length in lengths)
        touched = [weights + length * position_bytes(shape, cache) for length in lengths]
        print(
            f"{cache:8} {short:7.2f} ms a token at {SHORT}, {long:7.2f} ms at {arguments.long};"
            f" by bytes {touched[0] / touched[1]:.2f}"
        )
        figures.append(
            Figure(f"{arguments.shape}, {cache}: speed kept at {arguments.long}", short / long, AIM)
        )
    data = {f"{cache} at {length}, ms": values for (cache, length), values in times.items()}
    report("Decoding over a long context", loads, figures, data, arguments.out)


if __name__ == "__main__":
    asyncio.run(main())
