"""A list of short prompts through `LLM` and `AsyncLLM`, beside the same load from a bare asyncio client.

The bare client is aiohttp with as many workers, which send the same bodies and read the JSON; the same
with httpx2, on which the OpenAI SDK sits, is there to compare. Rounds alternate; printed are the median
times over the bare client's (aim: 1.05 at most), how many of the server's slots were busy, sampled while
the prompts ran (aim: 95% at least), and the processor time that the client took for a prompt.

    python bench/many_prompts.py [--prompts 2000] [--slots 8] [--rounds 3]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import threading
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import aiohttp
import httpx2

from mlxcel import LLM, AsyncLLM, ManagedServer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

MODEL = "mlxcel-tiny"
TOKENS = 16
URL = "http://localhost/v1/chat/completions"
SAMPLE_SECONDS = 0.05


class Clock:
    """How long the prompts took, and the share of busy slots meanwhile, seen by a thread of its own."""

    def __init__(self, server: ManagedServer) -> None:
        self._server = server
        self._own = 0.0
        self.seconds: list[float] = []
        self.shares: list[float] = []
        self.processor: list[float] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        end = threading.Event()
        thread = threading.Thread(target=self._watch, args=(end,))
        thread.start()
        began, busy = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.seconds.append(time.perf_counter() - began)
            self.processor.append(time.process_time() - busy - self._own)
            end.set()
            thread.join()

    def _watch(self, end: threading.Event) -> None:
        self._own = 0.0
        transport = httpx2.HTTPTransport(uds=self._server.socket_path)
        headers = {"Authorization": f"Bearer {self._server.api_key}"}
        with httpx2.Client(transport=transport, headers=headers) as client:
            while not end.wait(SAMPLE_SECONDS):
                props = client.get("http://localhost/props").json()
                self.shares.append(props["busy_slots"] / props["total_slots"])
                self._own = time.thread_time()


def blocking(server: ManagedServer, prompts: list[str], clock: Clock) -> None:
    with LLM(socket=server.socket_path, api_key=server.api_key) as llm, clock.running():
        llm.chat(prompts, temperature=0, max_tokens=TOKENS)


def awaited(server: ManagedServer, prompts: list[str], clock: Clock) -> None:
    async def use() -> None:
        async with AsyncLLM(socket=server.socket_path, api_key=server.api_key) as llm:
            with clock.running():
                await llm.chat(prompts, temperature=0, max_tokens=TOKENS)

    asyncio.run(use())


def body_of(prompt: str) -> dict[str, Any]:
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": prompt}],
        "temperature": 0,
        "max_tokens": TOKENS,
    }


async def worked(workers: int, prompts: list[str], ask: Callable[[str], Awaitable[None]]) -> None:
    waiting = iter(prompts)

    async def worker() -> None:
        for prompt in waiting:
            await ask(prompt)

    await asyncio.gather(*(worker() for _ in range(workers)))


def bare(workers: int, server: ManagedServer, prompts: list[str], clock: Clock) -> None:
    async def use() -> None:
        assert server.socket_path is not None
        headers = {"Authorization": f"Bearer {server.api_key}"}
        connector = aiohttp.UnixConnector(server.socket_path, limit=workers)
        async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

            async def ask(prompt: str) -> None:
                async with session.post(URL, json=body_of(prompt)) as response:
                    response.raise_for_status()
                    assert (await response.json())["choices"]

            with clock.running():
                await worked(workers, prompts, ask)

    asyncio.run(use())


def httpx2_bare(workers: int, server: ManagedServer, prompts: list[str], clock: Clock) -> None:
    async def use() -> None:
        headers = {"Authorization": f"Bearer {server.api_key}"}
        transport = httpx2.AsyncHTTPTransport(uds=server.socket_path)
        async with httpx2.AsyncClient(transport=transport, headers=headers, timeout=None) as client:

            async def ask(prompt: str) -> None:
                response = await client.post(URL, json=body_of(prompt))
                assert response.raise_for_status().json()["choices"]

            with clock.running():
                await worked(workers, prompts, ask)

    asyncio.run(use())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=2000)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    prompts = [f"What is {n % 97} + {n // 97}?" for n in range(arguments.prompts)]
    print(f"{MODEL}, {arguments.slots} slots, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with ManagedServer(MODEL, n_parallel=arguments.slots) as server:
        ways: dict[str, Callable[[ManagedServer, list[str], Clock], None]]
        workers = 4 * arguments.slots
        ways = {
            "LLM": blocking,
            "AsyncLLM": awaited,
            "bare": partial(bare, workers),
            "httpx2": partial(httpx2_bare, workers),
        }
        clocks = {name: Clock(server) for name in ways}
        for way in ways.values():
            way(server, prompts[:100], Clock(server))
        for _ in range(arguments.rounds):
            for name, way in ways.items():
                way(server, prompts, clocks[name])
    theirs = statistics.median(clocks["bare"].seconds)
    for name, clock in clocks.items():
        took, share = statistics.median(clock.seconds), statistics.mean(clock.shares)
        own = statistics.median(clock.processor) / arguments.prompts * 1e6
        print(
            f"{name:8} {took:6.2f} s, {took / theirs:.3f}x the bare client; slots {share:.1%} busy; "
            f"{own:.0f} µs of processor time a prompt"
        )


if __name__ == "__main__":
    main()
