"""How requests fare beside each other, against mlx_lm.server on the same weights.

Both servers run at once and are asked in turn, so that what else the machine does meets both.
Printed are the medians over the rounds and their ratio:

  streams     tok/s of one stream, and of eight together
  company     TTFT of a short request that comes while a 2,000-token prompt prefills, and the longest
              gap in a stream that runs meanwhile
  prefix      TTFT of 1,050 tokens cold, with the first 1,000 seen before, and of the last 50 alone
  health      p99 of GET /health while sixteen requests run (ours only: a peer has no such route)

    python bench/engine_vs_mlx_lm.py [--model FOLDER | --shape 2M] [--rounds 5] [--only streams]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import random_models
import servers
from load.client import Record, body, send
from load.prompts import Prompts
from load.report import percentile
from load.run import Target

if TYPE_CHECKING:
    import aiohttp

LONG, SHORT, PREFIX = 2000, 16, 1000


@dataclass
class Peer:
    """A server under load."""

    name: str
    target: Target
    session: aiohttp.ClientSession

    async def ask(self, prompt: str, max_tokens: int) -> Record:
        request = body("completions", self.target.model, prompt, max_tokens, random_models.SAME_TOKEN)
        record = await send(self.session, self.target.url, request)
        if not record.ok:
            raise SystemExit(f"{self.name}: {record.error}")
        return record


Figures = dict[str, float]


async def streams(peer: Peer, prompts: Prompts) -> Figures:
    figures = {}
    for count in (1, 8):
        asked = [prompts.draw(SHORT) for _ in range(count)]
        start = time.perf_counter()
        records = await asyncio.gather(*(peer.ask(prompt, 96) for prompt in asked))
        tokens = sum(record.output_tokens for record in records)
        figures[f"{count} stream{'s' * (count > 1)}, tok/s"] = tokens / (time.perf_counter() - start)
    return figures


async def company(peer: Peer, prompts: Prompts) -> Figures:
    stream = asyncio.create_task(peer.ask(prompts.draw(SHORT), 512))
    await asyncio.sleep(0.3)
    long = asyncio.create_task(peer.ask(prompts.draw(LONG), 2))
    await asyncio.sleep(0.1)
    short, long_record, running = await asyncio.gather(peer.ask(prompts.draw(SHORT), 8), long, stream)
    return {
        "short TTFT beside a long prefill, ms": short.ttft * 1000,
        "the long prompt's own TTFT, ms": long_record.ttft * 1000,
        "longest gap of a running stream, ms": max(running.itl) * 1000,
    }


async def prefix(peer: Peer, prompts: Prompts) -> Figures:
    shared, rest, other = prompts.draw(PREFIX), prompts.draw(50), prompts.draw(50)
    alone = await peer.ask(other, 2)
    cold = await peer.ask(shared + prompts.draw(50), 2)
    hit = await peer.ask(shared + rest, 2)
    return {
        "1,050 tokens cold, TTFT ms": cold.ttft * 1000,
        "1,000 of them seen before, TTFT ms": hit.ttft * 1000,
        "50 tokens alone, TTFT ms": alone.ttft * 1000,
        "tokens computed in the hit": float(hit.prompt_tokens - hit.cached_tokens),
    }


async def health(peer: Peer, prompts: Prompts) -> Figures:
    if peer.name != "mlxcel":
        return {}
    load = asyncio.gather(*(peer.ask(prompts.draw(200), 96) for _ in range(16)))
    waits = []
    while not load.done():
        start = time.perf_counter()
        async with peer.session.get(peer.target.base_url.removesuffix("/v1") + "/health") as response:
            await response.read()
        waits.append(time.perf_counter() - start)
        await asyncio.sleep(0.01)
    await load
    return {"/health p99 under load, ms": percentile(sorted(waits), 99) * 1000}


SCENARIOS = {"streams": streams, "company": company, "prefix": prefix, "health": health}


async def compare(peers: list[Peer], rounds: int, only: list[str]) -> None:
    prompts = Prompts(random_models.TINY, seed=1)
    for peer in peers:
        await peer.ask(prompts.draw(SHORT), 8)
    for name in only:
        seen: dict[str, dict[str, list[float]]] = {}
        for _ in range(rounds):
            for peer in peers:
                for figure, value in (await SCENARIOS[name](peer, prompts)).items():
                    seen.setdefault(figure, {}).setdefault(peer.name, []).append(value)
        for figure, values in seen.items():
            medians = {peer: statistics.median(them) for peer, them in values.items()}
            row = "   ".join(f"{peer} {median:9.1f}" for peer, median in medians.items())
            both = list(medians.values())
            print(
                f"{figure:40} {row}" + (f"   {both[0] / both[1]:6.2f}x" if len(both) == 2 and both[1] else "")
            )


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="a checkpoint; default: a random one of --shape")
    parser.add_argument("--shape", choices=random_models.SHAPES, default="2M")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=SCENARIOS, action="append", help="repeat for several; default: all")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.model
        if folder is None:
            folder = Path(temporary) / arguments.shape
            random_models.write(random_models.SHAPES[arguments.shape], folder)
        machine = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
        print(f"{folder.name} on {machine}, {arguments.rounds} rounds")
        with servers.mlxcel(folder, n_parallel=16) as ours, servers.mlx_lm(folder) as theirs:
            targets = [
                (server.name, Target(server.base_url, server.model, server.headers))
                for server in (ours, theirs)
            ]
            async with targets[0][1].session() as first, targets[1][1].session() as second:
                peers = [
                    Peer(name, target, session)
                    for (name, target), session in zip(targets, (first, second), strict=True)
                ]
                await compare(peers, arguments.rounds, arguments.only or list(SCENARIOS))


if __name__ == "__main__":
    asyncio.run(main())
