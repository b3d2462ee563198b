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

from ._http1 import AsyncConnection, Connection, origin_of
from ._network import AnyBackend, Backend

if TYPE_CHECKING:
    import ssl

    import httpx2

    from ._http1 import Origin

__all__ = ["AsyncPool", "Pool"]

_MOST = 1000
"""Connections, as many as the SDK's own client has: hundreds of requests may be in flight."""
_MOST_IDLE = 100
_IDLE_SECONDS = 5.0
_ALL_IN_USE = f"all of the {_MOST} connections are in use"

ConnectionT = TypeVar("ConnectionT", Connection, AsyncConnection)


class _Shelf(Generic[ConnectionT]):
    """All connections of a pool, and those that nobody uses, the oldest first. Closes none itself."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all: set[ConnectionT] = set()
        self._idle: list[ConnectionT] = []
        self._closed = False

    def add(self, connection: ConnectionT) -> None:
        """A new one, in use."""
        with self._lock:
            self._all.add(connection)

    def take(self, origin: Origin) -> ConnectionT | None:
        """The one that was used last, if it leads there."""
        with self._lock:
            if self._idle and self._idle[-1].origin == origin:
                return self._idle.pop()
        return None

    def put(self, connection: ConnectionT, *, spent: bool = False) -> list[ConnectionT]:
        """Give back one that was used; returns those to close."""
        now = time.monotonic()
        going = []
        with self._lock:
            if not (spent or self._closed) and connection.ready_again():
                connection.idle_until = now + _IDLE_SECONDS
                self._idle.append(connection)
            else:
                going.append(connection)
            while self._idle and (len(self._idle) > _MOST_IDLE or now > self._idle[0].idle_until):
                going.append(self._idle.pop(0))
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
        self._uds = uds
        self._ssl_context = ssl_context
        self._backend = Backend()
        self._room = threading.BoundedSemaphore(_MOST)
        self._shelf: _Shelf[Connection] = _Shelf()

    def send(self, request: httpx2.Request) -> httpx2.Response:
        """The response. Its connection is free again once its body is closed."""
        timeouts = request.extensions.get("timeout", {})
        if not self._room.acquire(timeout=timeouts.get("pool")):
            raise httpcore2.PoolTimeout(_ALL_IN_USE)
        try:
            connection = self._connection(request, timeouts.get("connect"))
        except BaseException:
            self._room.release()
            raise
        try:
            return connection.send(request, partial(self._give_back, connection))
        except BaseException:
            self._give_back(connection, spent=True)
            raise

    def close(self) -> None:
        """Close all connections, those that are used too."""
        for connection in self._shelf.clear():
            connection.close()

    def _connection(self, request: httpx2.Request, timeout: float | None) -> Connection:
        origin = origin_of(request.url)
        while (connection := self._shelf.take(origin)) is not None:
            if not connection.is_dead():
                return connection
            self._put(connection, spent=True)
        connection = Connection(origin, self._connected(request, origin, timeout))
        self._shelf.add(connection)
        return connection

    def _connected(
        self, request: httpx2.Request, origin: Origin, timeout: float | None
    ) -> httpcore2.NetworkStream:
        scheme, host, port = origin
        if self._uds is not None:
            stream = self._backend.connect_unix_socket(self._uds, timeout)
        else:
            stream = self._backend.connect_tcp(host, port, timeout)
        if scheme != "https":
            return stream
        return stream.start_tls(self._ssl_context, _server_name(request, host), timeout)

    def _give_back(self, connection: Connection, *, spent: bool = False) -> None:
        try:
            self._put(connection, spent=spent)
        finally:
            self._room.release()

    def _put(self, connection: Connection, *, spent: bool) -> None:
        for old in self._shelf.put(connection, spent=spent):
            old.close()


class AsyncPool:
    """Connections of one event loop."""

    def __init__(self, uds: str | None, ssl_context: ssl.SSLContext) -> None:
        self._uds = uds
        self._ssl_context = ssl_context
        self._backend = _backend_of_this_loop()
        self._room = anyio.Semaphore(_MOST, fast_acquire=True)
        self._shelf: _Shelf[AsyncConnection] = _Shelf()

    async def send(self, request: httpx2.Request) -> httpx2.Response:
        """The async twin of `Pool.send`."""
        timeouts = request.extensions.get("timeout", {})
        await self._enter(timeouts.get("pool"))
        try:
            connection = await self._connection(request, timeouts.get("connect"))
        except BaseException:
            self._room.release()
            raise
        try:
            return await connection.send(request, partial(self._give_back, connection))
        except BaseException:
            await self._give_back(connection, spent=True)
            raise

    async def aclose(self) -> None:
        """Close all connections, those that are used too."""
        await _closed(self._shelf.clear())

    async def _enter(self, timeout: float | None) -> None:
        try:
            self._room.acquire_nowait()
        except anyio.WouldBlock:
            try:
                with anyio.fail_after(timeout):
                    await self._room.acquire()
            except TimeoutError:
                raise httpcore2.PoolTimeout(_ALL_IN_USE) from None

    async def _connection(self, request: httpx2.Request, timeout: float | None) -> AsyncConnection:
        origin = origin_of(request.url)
        while (connection := self._shelf.take(origin)) is not None:
            if not connection.is_dead():
                return connection
            await _closed(self._shelf.put(connection, spent=True))
        connection = AsyncConnection(origin, await self._connected(request, origin, timeout))
        self._shelf.add(connection)
        return connection

    async def _connected(
        self, request: httpx2.Request, origin: Origin, timeout: float | None
    ) -> httpcore2.AsyncNetworkStream:
        scheme, host, port = origin
        if self._uds is not None:
            stream = await self._backend.connect_unix_socket(self._uds, timeout)
        else:
            stream = await self._backend.connect_tcp(host, port, timeout)
        if scheme != "https":
            return stream
        return await stream.start_tls(self._ssl_context, _server_name(request, host), timeout)

    async def _give_back(self, connection: AsyncConnection, *, spent: bool = False) -> None:
        try:
            await _closed(self._shelf.put(connection, spent=spent))
        finally:
            self._room.release()


async def _closed(connections: list[AsyncConnection]) -> None:
    if connections:
        with anyio.CancelScope(shield=True):
            for connection in connections:
                await connection.close()


def _server_name(request: httpx2.Request, host: str) -> str:
    name: Any = request.extensions.get("sni_hostname")
    return str(name or host)


def _backend_of_this_loop() -> httpcore2.AsyncNetworkBackend:
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return AnyBackend()
    from ._asyncio_network import AsyncioBackend

    return AsyncioBackend()
