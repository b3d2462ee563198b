"""RSS of the server over 1,000 requests of random lengths (aim: where it was after the first 100).

The prefix cache grows to its bound and is meant to: what the server says it holds is told apart. A
second server keeps none.

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
    print(f"mlxcel-tiny on {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for extra in ([], ["--no-prefix-cache"]):
        print(" ".join(extra) or "with the prefix cache")
        await measure(arguments.requests, arguments.concurrency, extra)


async def measure(requests: int, concurrency: int, extra: list[str]) -> None:
    draw = random.Random(1)
    prompts = Prompts(random_models.TINY, seed=1)
    with servers.mlxcel("mlxcel-tiny", n_parallel=concurrency, extra_args=extra) as server:
        target = Target(server.base_url, server.model, server.headers)
        process = psutil.Process(server.pid)
        early = 0.0
        async with target.session() as session:
            for done in range(0, requests + 1, 100):
                failed = []
                if done:
                    some = [
                        (prompts.draw(draw.randrange(1, 1200)), draw.randrange(1, 80)) for _ in range(100)
                    ]
                    outcome = await run(target, Load(concurrency=concurrency), some, {})
                    failed = [record.error for record in outcome.records if not record.ok]
                # Free memory goes back once the engine has been at rest for half a second.
                await asyncio.sleep(2)
                async with session.get(f"{server.root_url}/props") as response:
                    cached = (await response.json())["kv_cache"]["prefix_cache_bytes"] / 1e6
                resident = float(process.memory_info().rss) / 1e6
                others = resident - cached
                early = others if done == 100 else early
                print(
                    f"after {done:5} requests {resident:7.1f} MB, {cached:6.1f} of them the prefix cache, "
                    f"{others:7.1f} others" + (f"   failed: {failed[:2]}" if failed else "")
                )
        print(f"others: last over first hundred {others / early:.3f}x")


if __name__ == "__main__":
    asyncio.run(main())
