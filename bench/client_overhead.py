"""What a call through `LLM` costs beside the bare OpenAI SDK on the same socket.

A server that answers at once leaves only the client's own work. Alternating calls; printed are the
CPU time that `LLM.chat` adds (aim: 50 µs at most), the ratio of the wall times, and the throughput
of many concurrent `AsyncLLM.chat` calls over that of the bare `AsyncOpenAI` (aim: 0.95 at least).

    python bench/client_overhead.py [--calls 2000] [--concurrency 256] [--rounds 7]
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from typing import TYPE_CHECKING, Any

import httpx2
import instant_server
import openai

from mlxcel import LLM, AsyncLLM

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

MESSAGES: Any = [{"role": "user", "content": "Say hello."}]
LIMITS = httpx2.Limits(max_connections=1000, max_keepalive_connections=100)  # as the SDK makes its own client
ADDRESS: Any = {"base_url": "http://localhost/v1", "api_key": "-", "max_retries": 0}


def blocking(socket: str, calls: int) -> None:
    http = httpx2.Client(transport=httpx2.HTTPTransport(uds=socket), trust_env=False)
    with LLM(socket=socket) as llm, openai.OpenAI(http_client=http, **ADDRESS) as bare:

        def ours() -> None:
            llm.chat(MESSAGES, model=instant_server.MODEL, max_tokens=8)

        def theirs() -> None:
            bare.chat.completions.create(messages=MESSAGES, model=instant_server.MODEL, max_tokens=8)

        cpu: dict[Callable[[], None], list[float]] = {ours: [], theirs: []}
        wall: dict[Callable[[], None], list[float]] = {ours: [], theirs: []}
        for _ in range(100):
            ours(), theirs()
        for _ in range(calls):
            for call in (ours, theirs):
                start, busy = time.perf_counter(), time.thread_time()
                call()
                cpu[call].append(time.thread_time() - busy)
                wall[call].append(time.perf_counter() - start)
    added = (statistics.median(cpu[ours]) - statistics.median(cpu[theirs])) * 1e6
    ratio = statistics.median(wall[ours]) / statistics.median(wall[theirs])
    print(f"LLM.chat adds {added:.1f} µs of CPU time a call; wall {ratio:.3f}x the bare SDK's")


async def concurrent(socket: str, concurrency: int, rounds: int) -> None:
    transport = httpx2.AsyncHTTPTransport(uds=socket, limits=LIMITS)
    http = httpx2.AsyncClient(transport=transport, trust_env=False)
    async with AsyncLLM(socket=socket) as llm, openai.AsyncOpenAI(http_client=http, **ADDRESS) as bare:

        async def ours() -> None:
            await llm.chat(MESSAGES, model=instant_server.MODEL, max_tokens=8)

        async def theirs() -> None:
            await bare.chat.completions.create(messages=MESSAGES, model=instant_server.MODEL, max_tokens=8)

        async def rate(call: Callable[[], Awaitable[None]]) -> float:
            start = time.perf_counter()
            await asyncio.gather(*(call() for _ in range(concurrency)))
            return concurrency / (time.perf_counter() - start)

        for call in (ours, theirs):
            await rate(call)
        pairs = [(await rate(ours), await rate(theirs)) for _ in range(rounds)]
    mine, others = (statistics.median(side) for side in zip(*pairs, strict=True))
    rates = f"AsyncLLM {mine:.0f} requests/s, bare SDK {others:.0f} requests/s"
    print(f"{concurrency} at once: {rates}, {mine / others:.3f}x")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    with instant_server.running() as socket:
        blocking(socket, arguments.calls)
        asyncio.run(concurrent(socket, arguments.concurrency, arguments.rounds))


if __name__ == "__main__":
    main()
