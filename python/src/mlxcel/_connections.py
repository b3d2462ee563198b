"""Connection pools that know about deadlines, forks and event loops.

The pools are httpcore2's own, used as httpx2's transports do, with network
backends of ours below: those cut each blocking wait at the deadline of the
call (`_deadline.current`) and note each socket for `_forked_sockets`.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

import httpcore2
import httpx2
from anyio.lowlevel import current_token

from . import _deadline, _forked_sockets

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator

__all__ = ["PerLoopTransport", "PerProcessTransport"]


class PerProcessTransport(httpx2.BaseTransport):
    """A connection pool for each process: a forked child opens connections of its own."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        self._pools: dict[int, httpcore2.ConnectionPool] = {}

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        pid = os.getpid()
        pool = self._pools.get(pid)
        if pool is None:
            new = httpcore2.ConnectionPool(network_backend=_Backend(), **self._settings)
            pool = self._pools.setdefault(pid, new)
        with _httpx2_errors():
            response = pool.handle_request(_core_request(request))
        return httpx2.Response(
            status_code=response.status,
            headers=response.headers,
            stream=_Stream(response.stream),
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

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        self._pools: dict[object, tuple[httpcore2.AsyncConnectionPool, AsyncGenerator[None]]] = {}

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        loop = (os.getpid(), current_token())
        entry = self._pools.get(loop)
        if entry is None:
            pool = httpcore2.AsyncConnectionPool(network_backend=_AsyncBackend(), **self._settings)
            entry = self._pools[loop] = (pool, self._close_with_loop(loop, pool))
            await anext(entry[1])
        with _httpx2_errors():
            response = await entry[0].handle_async_request(_core_request(request))
        return httpx2.Response(
            status_code=response.status,
            headers=response.headers,
            stream=_AsyncStream(response.stream),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        entry = self._pools.get((os.getpid(), current_token()))
        if entry is not None:
            await entry[1].aclose()

    async def _close_with_loop(
        self, loop: object, pool: httpcore2.AsyncConnectionPool
    ) -> AsyncGenerator[None]:
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


@contextlib.contextmanager
def _httpx2_errors() -> Iterator[None]:
    """httpx2's errors bear the names of those of httpcore2 that they stand for."""
    try:
        yield
    except (
        httpcore2.TimeoutException,
        httpcore2.NetworkError,
        httpcore2.ProtocolError,
        httpcore2.UnsupportedProtocol,
    ) as error:
        raise getattr(httpx2, type(error).__name__)(str(error)) from error


class _Stream(httpx2.SyncByteStream):
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        with _httpx2_errors():
            yield from self._stream

    def close(self) -> None:
        self._stream.close()


class _AsyncStream(httpx2.AsyncByteStream):
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _httpx2_errors():
            async for part in self._stream:
                yield part

    async def aclose(self) -> None:
        await self._stream.aclose()


class _Backend(httpcore2.SyncBackend):
    """Blocking sockets whose every wait ends at the deadline of the call."""

    def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, *arguments: Any, **options: Any
    ) -> httpcore2.NetworkStream:
        limit = _limited(timeout, httpcore2.ConnectTimeout)
        return _BoundedStream(super().connect_tcp(host, port, limit, *arguments, **options))

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore2.NetworkStream:
        limit = _limited(timeout, httpcore2.ConnectTimeout)
        return _BoundedStream(super().connect_unix_socket(path, limit, socket_options))


class _BoundedStream(httpcore2.NetworkStream):
    def __init__(self, stream: httpcore2.NetworkStream) -> None:
        self._stream = stream
        _forked_sockets.note(stream)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _limited(timeout, httpcore2.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _limited(timeout, httpcore2.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.NetworkStream:
        limit = _limited(timeout, httpcore2.ConnectTimeout)
        return _BoundedStream(self._stream.start_tls(ssl_context, server_hostname, limit))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _AsyncBackend(httpcore2.AnyIOBackend):
    async def connect_tcp(self, *arguments: Any, **options: Any) -> httpcore2.AsyncNetworkStream:
        return _noted(await super().connect_tcp(*arguments, **options))

    async def connect_unix_socket(self, *arguments: Any, **options: Any) -> httpcore2.AsyncNetworkStream:
        return _noted(await super().connect_unix_socket(*arguments, **options))


def _noted(stream: httpcore2.AsyncNetworkStream) -> httpcore2.AsyncNetworkStream:
    _forked_sockets.note(stream)
    return stream


def _limited(timeout: float | None, error: type[httpcore2.TimeoutException]) -> float | None:
    """The shorter of a timeout and what the deadline leaves, never 0 (which would mean not to wait)."""
    deadline = _deadline.current.get()
    left = None if deadline is None else deadline.left()
    if left is None:
        return timeout
    if left <= 0:
        raise error("the time of the call is used up")
    return left if timeout is None else min(timeout, left)
