"""Transports of httpx2 that know about forks and event loops, over the pools of `_pool`."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import httpx2
from anyio.lowlevel import current_token

from ._http1 import as_httpx2_errors
from ._pool import AsyncPool, Pool

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator

__all__ = ["PerLoopTransport", "PerProcessTransport"]


class PerProcessTransport(httpx2.BaseTransport):
    """A connection pool for each process: a forked child opens connections of its own."""

    def __init__(self, uds: str | None, ssl_context: ssl.SSLContext) -> None:
        self._settings = uds, ssl_context
        self._pools: dict[int, Pool] = {}

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        pid = os.getpid()
        pool = self._pools.get(pid)
        if pool is None:
            pool = self._pools.setdefault(pid, Pool(*self._settings))
        with as_httpx2_errors():
            return pool.send(request)

    def close(self) -> None:
        pool = self._pools.pop(os.getpid(), None)
        if pool is not None:
            pool.close()


class PerLoopTransport(httpx2.AsyncBaseTransport):
    """A connection pool for each event loop, closed together with its loop.

    A pool's connections belong to the loop they were opened in, and one
    `AsyncLLM` may live through several `asyncio.run` calls.
    """

    def __init__(self, uds: str | None, ssl_context: ssl.SSLContext) -> None:
        self._settings = uds, ssl_context
        self._pools: dict[object, tuple[AsyncPool, AsyncGenerator[None]]] = {}

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        loop = _this_loop()
        entry = self._pools.get(loop)
        if entry is None:
            pool = AsyncPool(*self._settings)
            entry = self._pools[loop] = (pool, self._close_with_loop(loop, pool))
            await anext(entry[1])
        with as_httpx2_errors():
            return await entry[0].send(request)

    async def aclose(self) -> None:
        entry = self._pools.get(_this_loop())
        if entry is not None:
            await entry[1].aclose()

    async def _close_with_loop(self, loop: object, pool: AsyncPool) -> AsyncGenerator[None]:
        # A loop closes the async generators that were started in it before it
        # ends: the only notice of its end that it gives.
        try:
            yield
        finally:
            self._pools.pop(loop, None)
            await pool.aclose()


def _this_loop() -> object:
    try:
        return os.getpid(), asyncio.get_running_loop()
    except RuntimeError:
        return os.getpid(), current_token()  # trio's
