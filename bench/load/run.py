"""Sends requests at a rate or at a concurrency, and waits for all of them."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp

from .client import ROUTES, Record, body, send

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Target:
    """A server: `base_url` ends with `/v1`; `socket` is a Unix socket to reach it through."""

    base_url: str
    model: str
    headers: dict[str, str]
    socket: str | None = None
    endpoint: str = "completions"

    @property
    def url(self) -> str:
        return self.base_url + ROUTES[self.endpoint]

    def session(self) -> aiohttp.ClientSession:
        connector: aiohttp.BaseConnector
        connector = (
            aiohttp.UnixConnector(self.socket, limit=0) if self.socket else aiohttp.TCPConnector(limit=0)
        )
        timeout = aiohttp.ClientTimeout(total=None, sock_read=600)
        return aiohttp.ClientSession(
            connector=connector, headers=self.headers, timeout=timeout, trust_env=False
        )


@dataclass(frozen=True)
class Load:
    """What to send: `rate` requests a second (None: all at once), at most `concurrency` in flight.

    Arrivals are a gamma process: `burstiness` 1 is Poisson, more is steadier, less comes in bursts.
    """

    rate: float | None = None
    concurrency: int | None = None
    burstiness: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    records: list[Record]
    seconds: float


async def run(
    target: Target, load: Load, prompts: Sequence[tuple[str, int]], extra: dict[str, Any]
) -> Outcome:
    """Sends every (prompt, max_tokens) pair."""
    limit = asyncio.Semaphore(load.concurrency or len(prompts))
    draw = random.Random(load.seed)

    async with target.session() as session:

        async def one(prompt: str, max_tokens: int) -> Record:
            async with limit:
                return await send(
                    session, target.url, body(target.endpoint, target.model, prompt, max_tokens, extra)
                )

        start = time.perf_counter()
        tasks = []
        due = start
        for prompt, max_tokens in prompts:
            tasks.append(asyncio.create_task(one(prompt, max_tokens)))
            if load.rate is not None:
                due += draw.gammavariate(load.burstiness, 1 / (load.rate * load.burstiness))
                await asyncio.sleep(max(due - time.perf_counter(), 0))
        records = await asyncio.gather(*tasks)
        return Outcome(list(records), time.perf_counter() - start)
