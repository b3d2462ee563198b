"""HTTP/1.1 on one connection: between the objects of httpx2 and httpcore2's network streams.

httpcore2 has the same with locks, traces and objects of its own around it, which cost more than the protocol.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias

import httpcore2
import httpx2

from ._http1_answer import Answer
from ._http1_request import OutgoingRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from types import TracebackType

__all__ = ["AsyncConnection", "Connection", "Origin", "as_httpx2_errors", "origin_of"]

Origin: TypeAlias = tuple[str, str, int]
"""Scheme, host and port."""

_READ_BYTES = 64 * 1024
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
    """Around a piece of work: errors of network streams come out as those of httpx2."""

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


class _Exchange:
    """A request and its answer. No I/O."""

    _answer: Answer
    _keeps_alive = False

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.idle_until = 0.0
        """On the clock of `time.monotonic`; kept by the pool."""
        self._is_sent = False

    def _begin(self, request: httpx2.Request) -> OutgoingRequest:
        outgoing = OutgoingRequest(request)
        self._is_sent = False
        self._keeps_alive = outgoing.keeps_alive
        self._answer = Answer(to_head=request.method == "HEAD")
        return outgoing

    def _response(self, stream: _Body | _AsyncBody, network: object) -> httpx2.Response:
        answer = self._answer
        return httpx2.Response(
            answer.status,
            headers=answer.fields,
            stream=stream,
            extensions={
                "http_version": answer.version,
                "reason_phrase": answer.reason,
                "network_stream": network,
            },
        )

    def ready_again(self) -> bool:
        """Whether another request can follow on the same connection."""
        return self._is_sent and self._keeps_alive and self._answer.leaves_room()


class Connection(_Exchange):
    """A connection of a thread."""

    def __init__(self, origin: Origin, network: httpcore2.NetworkStream) -> None:
        super().__init__(origin)
        self._network = network

    def send(self, request: httpx2.Request, release: Callable[[], None]) -> httpx2.Response:
        """The head of the answer; once its body is closed `release` is called."""
        timeouts = request.extensions.get("timeout", {})
        write, read = timeouts.get("write"), timeouts.get("read")
        if not isinstance(request.stream, httpx2.SyncByteStream):
            raise TypeError("a blocking client was given an async body")
        outgoing = self._begin(request)
        # A server may answer before it has read all, and hang up.
        with suppress(httpcore2.WriteError):
            self._network.write(outgoing.head, write)
            for part in request.stream:
                self._network.write(outgoing.part(part), write)
            self._network.write(outgoing.end(), write)
            self._is_sent = True
        while not self._answer.takes_head(self._network.read(_READ_BYTES, read)):
            pass
        return self._response(_Body(self._answer, self._network, read, release), self._network)

    def is_dead(self) -> bool:
        """Of an idle one: whether its server has hung up, or may be about to."""
        return time.monotonic() > self.idle_until or bool(self._network.get_extra_info("is_readable"))

    def close(self) -> None:
        self._network.close()


class _Body(httpx2.SyncByteStream):
    def __init__(
        self,
        answer: Answer,
        network: httpcore2.NetworkStream,
        timeout: float | None,
        release: Callable[[], None],
    ) -> None:
        self._answer = answer
        self._network = network
        self._timeout = timeout
        self._release: Callable[[], None] | None = release

    def __iter__(self) -> Iterator[bytes]:
        try:
            with as_httpx2_errors():
                piece = self._answer.first()
                while True:
                    if piece:
                        yield piece
                    if self._answer.is_over:
                        return
                    piece = self._answer.more(self._network.read(_READ_BYTES, self._timeout))
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
        if not isinstance(request.stream, httpx2.AsyncByteStream):
            raise TypeError("an async client was given a blocking body")
        outgoing = self._begin(request)
        with suppress(httpcore2.WriteError):  # as in `Connection`
            await self._network.write(outgoing.head, write)
            async for part in request.stream:
                await self._network.write(outgoing.part(part), write)
            await self._network.write(outgoing.end(), write)
            self._is_sent = True
        while not self._answer.takes_head(await self._network.read(_READ_BYTES, read)):
            pass
        return self._response(_AsyncBody(self._answer, self._network, read, release), self._network)

    def is_dead(self) -> bool:
        """Of an idle one: whether its server has hung up, or may be about to."""
        return time.monotonic() > self.idle_until or bool(self._network.get_extra_info("is_readable"))

    async def close(self) -> None:
        await self._network.aclose()


class _AsyncBody(httpx2.AsyncByteStream):
    def __init__(
        self,
        answer: Answer,
        network: httpcore2.AsyncNetworkStream,
        timeout: float | None,
        release: Callable[[], Awaitable[None]],
    ) -> None:
        self._answer = answer
        self._network = network
        self._timeout = timeout
        self._release: Callable[[], Awaitable[None]] | None = release

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            with as_httpx2_errors():
                piece = self._answer.first()
                while True:
                    if piece:
                        yield piece
                    if self._answer.is_over:
                        return
                    piece = self._answer.more(await self._network.read(_READ_BYTES, self._timeout))
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        release, self._release = self._release, None
        if release is not None:
            await release()
