"""Between a client and a server that is restarted when it dies.

A request that never reached the server waits for the next one and goes there;
one that was under way fails with the error that says how the server died. This
sits below the SDK, so that `openai_client` has it too.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import anyio.to_thread
import httpx2

from . import _deadline

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from ._server_protocol import Server
    from .errors import MlxcelServerCrashedError

__all__ = ["AsyncSupervisedTransport", "SupervisedTransport"]

_BROKEN = (httpx2.NetworkError, httpx2.ProtocolError)
_NOTICE_SECONDS = 1.0
"""How long a death may take to be noticed, after a connection broke."""


class SupervisedTransport(httpx2.BaseTransport):
    """Sends requests to whichever process serves now."""

    def __init__(self, inner: httpx2.BaseTransport, server: Server) -> None:
        self._inner = inner
        self._server = server

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        server = self._server
        while True:
            server.wait_available(_patience(request))
            generation = server.generation
            try:
                response = self._inner.handle_request(request)
            except httpx2.ConnectError:
                if _gone(server, generation) is None and server.generation == generation:
                    server.wait_available(_patience(request))  # says so if it was stopped
                    raise
                continue
            except _BROKEN as error:
                failure = _gone(server, generation)
                if failure is None:
                    raise
                raise failure from error
            if _refused_by_the_next(response, server, generation):
                response.close()
                continue
            if not isinstance(response.stream, httpx2.SyncByteStream):
                raise TypeError("a blocking transport answered with an async stream")
            response.stream = _WatchedStream(response.stream, server, generation)
            return response

    def close(self) -> None:
        self._inner.close()


class AsyncSupervisedTransport(httpx2.AsyncBaseTransport):
    """The async twin of `SupervisedTransport`."""

    def __init__(self, inner: httpx2.AsyncBaseTransport, server: Server) -> None:
        self._inner = inner
        self._server = server

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        server = self._server
        while True:
            await server.wait_available_async(_patience(request))
            generation = server.generation
            try:
                response = await self._inner.handle_async_request(request)
            except httpx2.ConnectError:
                if await _gone_async(server, generation) is None and server.generation == generation:
                    await server.wait_available_async(_patience(request))
                    raise
                continue
            except _BROKEN as error:
                failure = await _gone_async(server, generation)
                if failure is None:
                    raise
                raise failure from error
            if _refused_by_the_next(response, server, generation):
                await response.aclose()
                continue
            if not isinstance(response.stream, httpx2.AsyncByteStream):
                raise TypeError("an async transport answered with a blocking stream")
            response.stream = _AsyncWatchedStream(response.stream, server, generation)
            return response

    async def aclose(self) -> None:
        await self._inner.aclose()


class _WatchedStream(httpx2.SyncByteStream):
    """A body whose breaking off is explained by the server's death, if it died."""

    def __init__(self, inner: httpx2.SyncByteStream, server: Server, generation: int) -> None:
        self._inner = inner
        self._server = server
        self._generation = generation

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._inner
        except _BROKEN as error:
            failure = _gone(self._server, self._generation)
            if failure is None:
                raise
            raise failure from error

    def close(self) -> None:
        self._inner.close()


class _AsyncWatchedStream(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream, server: Server, generation: int) -> None:
        self._inner = inner
        self._server = server
        self._generation = generation

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for part in self._inner:
                yield part
        except _BROKEN as error:
            failure = await _gone_async(self._server, self._generation)
            if failure is None:
                raise
            raise failure from error

    async def aclose(self) -> None:
        await self._inner.aclose()


def _patience(request: httpx2.Request) -> float | None:
    """How long a request may wait for a server: its deadline, or the SDK's limit for each read."""
    deadline = _deadline.current.get()
    if deadline is not None:
        return deadline.left()
    read: float | None = request.extensions.get("timeout", {}).get("read")
    return read


def _gone(server: Server, generation: int) -> MlxcelServerCrashedError | None:
    deadline = _deadline.current.get()
    left = None if deadline is None else deadline.left()
    return server.failure_since(generation, _NOTICE_SECONDS if left is None else min(left, _NOTICE_SECONDS))


async def _gone_async(server: Server, generation: int) -> MlxcelServerCrashedError | None:
    return await anyio.to_thread.run_sync(
        partial(server.failure_since, generation, _NOTICE_SECONDS), abandon_on_cancel=True
    )


def _refused_by_the_next(response: httpx2.Response, server: Server, generation: int) -> bool:
    """A new process already listens while it loads: its 503 means that it did not even look."""
    return response.status_code == 503 and server.generation != generation
