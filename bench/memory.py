"""RSS of the server over 1,000 requests of random lengths (aim: where it was after the first 100).

python bench/memory.py [--requests 1000] [--concurrency 8]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random

import psutil
import random_models
import servers
from load.prompts import Prompts
from load.run import Load, Target, run


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--concurrency", type=int, default=8)
    arguments = parser.parse_args()
    draw = random.Random(1)
    prompts = Prompts(random_models.TINY, seed=1)
    with servers.mlxcel("mlxcel-tiny", n_parallel=arguments.concurrency) as server:
        target = Target(server.base_url, server.model, server.headers)
        process = psutil.Process(server.pid)
        print(f"mlxcel-tiny on {os.cpu_count()} cores; at the start {rss(process):7.1f} MB")
        early = late = 0.0
        for done in range(100, arguments.requests + 1, 100):
            some = [(prompts.draw(draw.randrange(1, 1200)), draw.randrange(1, 80)) for _ in range(100)]
            outcome = await run(target, Load(concurrency=arguments.concurrency), some, {})
            failed = [record.error for record in outcome.records if not record.ok]
            await asyncio.sleep(1)
            late = rss(process)
            early = early or late
            print(f"after {done:5} requests {late:7.1f} MB" + (f"   failed: {failed[:2]}" if failed else ""))
        print(f"last over first hundred {late / early:.3f}x")


def rss(process: psutil.Process) -> float:
    return float(process.memory_info().rss) / 1e6


if __name__ == "__main__":
    asyncio.run(main())
