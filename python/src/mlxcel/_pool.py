"""Connections to reuse.

httpcore2's own pools look at each of their connections twice a request; these look at one, the one that
was used last, and its like grow old and are closed when there is less to do.
"""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio
import httpcore2

from ._network import AnyBackend, Backend

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

__all__ = ["AsyncPool", "Pool"]

_MOST = 1000
"""Connections, as many as the SDK's own client has: hundreds of requests may be in flight."""
_MOST_IDLE = 100
_IDLE_SECONDS = 5.0
_ALL_IN_USE = f"all of the {_MOST} connections are in use"

ConnectionT = TypeVar("ConnectionT", httpcore2.HTTPConnection, httpcore2.AsyncHTTPConnection)


class _Shelf(Generic[ConnectionT]):
    """All connections of a pool, and those that nobody uses, the oldest first. Closes none itself."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all: set[ConnectionT] = set()
        self._idle: list[tuple[float, ConnectionT]] = []
        self._closed = False

    def add(self, connection: ConnectionT) -> None:
        """A new one, in use."""
        with self._lock:
            self._all.add(connection)

    def take(self, origin: httpcore2.Origin) -> ConnectionT | None:
        """The one that was used last, if it leads there."""
        with self._lock:
            if self._idle and self._idle[-1][1].can_handle_request(origin):
                return self._idle.pop()[1]
        return None

    def put(self, connection: ConnectionT, *, spent: bool = False) -> list[ConnectionT]:
        """Give back one that was used; returns those to close."""
        now = time.monotonic()
        going = []
        with self._lock:
            if connection.is_idle() and not (connection.is_closed() or spent or self._closed):
                self._idle.append((now, connection))
            else:
                going.append(connection)
            while self._idle and (len(self._idle) > _MOST_IDLE or now - self._idle[0][0] > _IDLE_SECONDS):
                going.append(self._idle.pop(0)[1])
            self._all.difference_update(going)
        return going

    def clear(self) -> list[ConnectionT]:
        """Forget all of them, and those that come back; returns those to close."""
        with self._lock:
            self._closed = True
            spent = list(self._all)
            self._all.clear()
            self._idle.clear()
        return spent


class Pool:
    """Connections of threads."""

    def __init__(self, uds: str | None, ssl_context: ssl.SSLContext) -> None:
        self._settings: dict[str, Any] = {
            "uds": uds,
            "ssl_context": ssl_context,
            "network_backend": Backend(),
        }
        self._room = threading.BoundedSemaphore(_MOST)
        self._shelf: _Shelf[httpcore2.HTTPConnection] = _Shelf()

    def send(self, request: httpcore2.Request) -> tuple[httpcore2.Response, Callable[[], None]]:
        """The response, and what to call once its body is closed: then the connection is free again."""
        if not self._room.acquire(timeout=request.extensions.get("timeout", {}).get("pool")):
            raise httpcore2.PoolTimeout(_ALL_IN_USE)
        try:
            while (connection := self._shelf.take(request.url.origin)) and connection.has_expired():
                self._close(self._shelf.put(connection, spent=True))
            if connection is None:
                connection = httpcore2.HTTPConnection(request.url.origin, **self._settings)
                self._shelf.add(connection)
        except BaseException:
            self._room.release()
            raise
        try:
            return connection.handle_request(request), partial(self._give_back, connection)
        except BaseException:
            self._give_back(connection)
            raise

    def close(self) -> None:
        """Close all connections, those that are used too."""
        self._close(self._shelf.clear())

    def _give_back(self, connection: httpcore2.HTTPConnection) -> None:
        try:
            self._close(self._shelf.put(connection))
        finally:
            self._room.release()

    def _close(self, connections: list[httpcore2.HTTPConnection]) -> None:
        for connection in connections:
            connection.close()


class AsyncPool:
    """Connections of one event loop."""

    def __init__(self, uds: str | None, ssl_context: ssl.SSLContext) -> None:
        self._settings: dict[str, Any] = {
            "uds": uds,
            "ssl_context": ssl_context,
            "network_backend": _backend_of_this_loop(),
        }
        self._room = anyio.Semaphore(_MOST, fast_acquire=True)
        self._shelf: _Shelf[httpcore2.AsyncHTTPConnection] = _Shelf()

    async def send(
        self, request: httpcore2.Request
    ) -> tuple[httpcore2.Response, Callable[[], Awaitable[None]]]:
        """The async twin of `Pool.send`."""
        await self._enter(request.extensions.get("timeout", {}).get("pool"))
        try:
            while (connection := self._shelf.take(request.url.origin)) and connection.has_expired():
                await self._close(self._shelf.put(connection, spent=True))
            if connection is None:
                connection = httpcore2.AsyncHTTPConnection(request.url.origin, **self._settings)
                self._shelf.add(connection)
        except BaseException:
            self._room.release()
            raise
        try:
            return await connection.handle_async_request(request), partial(self._give_back, connection)
        except BaseException:
            await self._give_back(connection)
            raise

    async def aclose(self) -> None:
        """Close all connections, those that are used too."""
        await self._close(self._shelf.clear())

    async def _enter(self, timeout: float | None) -> None:
        try:
            self._room.acquire_nowait()
        except anyio.WouldBlock:
            try:
                with anyio.fail_after(timeout):
                    await self._room.acquire()
            except TimeoutError:
                raise httpcore2.PoolTimeout(_ALL_IN_USE) from None

    async def _give_back(self, connection: httpcore2.AsyncHTTPConnection) -> None:
        try:
            await self._close(self._shelf.put(connection))
        finally:
            self._room.release()

    async def _close(self, connections: list[httpcore2.AsyncHTTPConnection]) -> None:
        if connections:
            with anyio.CancelScope(shield=True):
                for connection in connections:
                    await connection.aclose()


def _backend_of_this_loop() -> httpcore2.AsyncNetworkBackend:
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return AnyBackend()
    from ._asyncio_network import AsyncioBackend

    return AsyncioBackend()
