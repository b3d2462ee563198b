"""HTTP/1.1 on one connection: h11 between the objects of httpx2 and httpcore2's network streams.

httpcore2 has the same with locks, traces and objects of its own around it, which cost more than the protocol.
"""

from __future__ import annotations

import time
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

import h11
import httpcore2
import httpx2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from types import TracebackType

__all__ = ["AsyncConnection", "Connection", "Origin", "as_httpx2_errors", "origin_of"]

Origin: TypeAlias = tuple[str, str, int]
"""Scheme, host and port."""

_READ_BYTES = 64 * 1024
_MOST_HEAD_BYTES = 100 * 1024
_PORTS = {"http": 80, "https": 443}
_NETWORK_ERRORS = (
    httpcore2.TimeoutException,
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.UnsupportedProtocol,
)


def origin_of(url: httpx2.URL) -> Origin:
    """Where a request goes."""
    return url.scheme, url.raw_host.decode("ascii"), url.port or _PORTS.get(url.scheme, 0)


class as_httpx2_errors:  # noqa: N801 - used like a function, and on the way of every request
    """Around a piece of work: errors of network streams and of h11 come out as those of httpx2."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(exc, _NETWORK_ERRORS):
            # httpx2's errors bear the names of those of httpcore2 that they stand for.
            kind: type[Exception] = getattr(httpx2, type(exc).__name__)
            raise kind(str(exc)) from exc
        if isinstance(exc, h11.LocalProtocolError):
            raise httpx2.LocalProtocolError(str(exc)) from exc
        if isinstance(exc, h11.RemoteProtocolError):
            raise httpx2.RemoteProtocolError(str(exc)) from exc


class _Exchange:
    """What the bytes of a connection mean. No I/O."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.idle_until = 0.0
        """On the clock of `time.monotonic`; kept by the pool."""
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MOST_HEAD_BYTES)

    def _head(self, request: httpx2.Request) -> bytes:
        return self._bytes_of(_head(request.method, request.url.raw_path, tuple(request.headers.raw)))

    def _bytes_of(self, event: h11.Event) -> bytes:
        return self._h11.send(event) or b""

    def _event(self) -> Any:
        """The next thing that the server said, or h11.NEED_DATA."""
        event = self._h11.next_event()
        if event is h11.PAUSED:
            raise httpx2.RemoteProtocolError("the server switched to another protocol")
        return event

    def _take(self, data: bytes) -> None:
        if not data and self._h11.their_state is h11.SEND_RESPONSE:
            raise httpx2.RemoteProtocolError("the server hung up without an answer")
        self._h11.receive_data(data)

    def _response(self, head: h11.Response, stream: Any, network: Any) -> httpx2.Response:
        return httpx2.Response(
            head.status_code,
            headers=head.headers.raw_items(),
            stream=stream,
            extensions={
                "http_version": b"HTTP/" + head.http_version,
                "reason_phrase": head.reason,
                "network_stream": network,
            },
        )

    def ready_again(self) -> bool:
        """Whether another request can follow on the same connection."""
        if self._h11.trailing_data[0]:
            return False  # nobody asked for that
        if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
            self._h11.start_next_cycle()
        return self._h11.our_state is h11.IDLE


@lru_cache(maxsize=64)
def _head(method: str, target: bytes, headers: tuple[tuple[bytes, bytes], ...]) -> h11.Request:
    """Checking the headers takes a while, and short prompts differ in their length alone."""
    return h11.Request(method=method, target=target, headers=list(headers))


class Connection(_Exchange):
    """A connection of a thread."""

    def __init__(self, origin: Origin, network: httpcore2.NetworkStream) -> None:
        super().__init__(origin)
        self._network = network

    def send(self, request: httpx2.Request, release: Callable[[], None]) -> httpx2.Response:
        """The head of the answer; once its body is closed `release` is called."""
        timeouts = request.extensions.get("timeout", {})
        write, read = timeouts.get("write"), timeouts.get("read")
        # A server may answer before it has read all, and hang up.
        with suppress(httpcore2.WriteError):
            self._network.write(self._head(request), write)
            if not isinstance(request.stream, httpx2.SyncByteStream):
                raise TypeError("a blocking client was given an async body")
            for part in request.stream:
                self._network.write(self._bytes_of(h11.Data(data=part)), write)
            self._network.write(self._bytes_of(h11.EndOfMessage()), write)
        while not isinstance(event := self._next(read), h11.Response):
            pass  # 1xx: more is to come
        return self._response(event, _Body(self, read, release), self._network)

    def _next(self, timeout: float | None) -> Any:
        while (event := self._event()) is h11.NEED_DATA:
            self._take(self._network.read(_READ_BYTES, timeout))
        return event

    def is_dead(self) -> bool:
        """Of an idle one: whether its server has hung up, or may be about to."""
        return time.monotonic() > self.idle_until or bool(self._network.get_extra_info("is_readable"))

    def close(self) -> None:
        self._network.close()


class _Body(httpx2.SyncByteStream):
    def __init__(self, connection: Connection, timeout: float | None, release: Callable[[], None]) -> None:
        self._connection = connection
        self._timeout = timeout
        self._release: Callable[[], None] | None = release

    def __iter__(self) -> Iterator[bytes]:
        try:
            with as_httpx2_errors():
                while isinstance(event := self._connection._next(self._timeout), h11.Data):
                    yield bytes(event.data)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        release, self._release = self._release, None
        if release is not None:
            release()


class AsyncConnection(_Exchange):
    """The async twin of `Connection`."""

    def __init__(self, origin: Origin, network: httpcore2.AsyncNetworkStream) -> None:
        super().__init__(origin)
        self._network = network

    async def send(self, request: httpx2.Request, release: Callable[[], Awaitable[None]]) -> httpx2.Response:
        """The head of the answer; once its body is closed `release` is awaited."""
        timeouts = request.extensions.get("timeout", {})
        write, read = timeouts.get("write"), timeouts.get("read")
        with suppress(httpcore2.WriteError):  # as in `Connection`
            await self._network.write(self._head(request), write)
            if not isinstance(request.stream, httpx2.AsyncByteStream):
                raise TypeError("an async client was given a blocking body")
            async for part in request.stream:
                await self._network.write(self._bytes_of(h11.Data(data=part)), write)
            await self._network.write(self._bytes_of(h11.EndOfMessage()), write)
        while not isinstance(event := await self._next(read), h11.Response):
            pass
        return self._response(event, _AsyncBody(self, read, release), self._network)

    async def _next(self, timeout: float | None) -> Any:
        while (event := self._event()) is h11.NEED_DATA:
            self._take(await self._network.read(_READ_BYTES, timeout))
        return event

    def is_dead(self) -> bool:
        """Of an idle one: whether its server has hung up, or may be about to."""
        return time.monotonic() > self.idle_until or bool(self._network.get_extra_info("is_readable"))

    async def close(self) -> None:
        await self._network.aclose()


class _AsyncBody(httpx2.AsyncByteStream):
    def __init__(
        self, connection: AsyncConnection, timeout: float | None, release: Callable[[], Awaitable[None]]
    ) -> None:
        self._connection = connection
        self._timeout = timeout
        self._release: Callable[[], Awaitable[None]] | None = release

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            with as_httpx2_errors():
                while isinstance(event := await self._connection._next(self._timeout), h11.Data):
                    yield bytes(event.data)
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        release, self._release = self._release, None
        if release is not None:
            await release()
