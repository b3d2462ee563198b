"""Transports of httpx2 that know about forks and event loops, over the pools of `_pool`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import httpcore2
import httpx2
from anyio.lowlevel import current_token

from ._pool import AsyncPool, Pool

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator

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
        try:
            response, release = pool.send(_core_request(request))
        except _CORE_ERRORS as error:
            raise _as_httpx2(error) from error
        return httpx2.Response(
            status_code=response.status,
            headers=response.headers,
            stream=_Stream(response.stream, release),
            extensions=response.extensions,
        )

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
        loop = (os.getpid(), current_token())
        entry = self._pools.get(loop)
        if entry is None:
            pool = AsyncPool(*self._settings)
            entry = self._pools[loop] = (pool, self._close_with_loop(loop, pool))
            await anext(entry[1])
        try:
            response, release = await entry[0].send(_core_request(request))
        except _CORE_ERRORS as error:
            raise _as_httpx2(error) from error
        return httpx2.Response(
            status_code=response.status,
            headers=response.headers,
            stream=_AsyncStream(response.stream, release),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        entry = self._pools.get((os.getpid(), current_token()))
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


def _core_request(request: httpx2.Request) -> httpcore2.Request:
    return httpcore2.Request(
        method=request.method,
        url=httpcore2.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        ),
        headers=request.headers.raw,
        content=request.stream,
        extensions=request.extensions,
    )


_CORE_ERRORS = (
    httpcore2.TimeoutException,
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.UnsupportedProtocol,
)


def _as_httpx2(error: Exception) -> Exception:
    """httpx2's errors bear the names of those of httpcore2 that they stand for."""
    kind: type[Exception] = getattr(httpx2, type(error).__name__)
    return kind(str(error))


class _Stream(httpx2.SyncByteStream):
    def __init__(self, stream: Any, release: Callable[[], None]) -> None:
        self._stream = stream
        self._release: Callable[[], None] | None = release

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._stream
        except _CORE_ERRORS as error:
            raise _as_httpx2(error) from error

    def close(self) -> None:
        release, self._release = self._release, None
        if release is not None:
            try:
                self._stream.close()
            finally:
                release()


class _AsyncStream(httpx2.AsyncByteStream):
    def __init__(self, stream: Any, release: Callable[[], Awaitable[None]]) -> None:
        self._stream = stream
        self._release: Callable[[], Awaitable[None]] | None = release

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for part in self._stream:
                yield part
        except _CORE_ERRORS as error:
            raise _as_httpx2(error) from error

    async def aclose(self) -> None:
        release, self._release = self._release, None
        if release is not None:
            try:
                await self._stream.aclose()
            finally:
                await release()
