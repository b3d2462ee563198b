"""Sockets of asyncio below the connection pools.

anyio's, which httpcore2 uses, watch a socket anew for each read, go once around the loop for each read and
write, and set up a limit for each: of a short answer that was a third. These are watched while they live.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, cast

import anyio
import httpcore2

from . import _forked_sockets
from ._network import FULL_PAUSE, HELD, is_readable

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

__all__ = ["AsyncioBackend"]

_UNREAD = 256 * 1024
"""Bytes that may lie here before the server has to wait."""
_HELD_UP = 0.1
"""Seconds after which an end of a connection may have been missed by a loop that was kept busy."""


class AsyncioBackend(httpcore2.AsyncNetworkBackend):
    """Opens connections in the running loop."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        *_arguments: Any,  # an address and options of our side: ours are never given any
        **_options: Any,
    ) -> httpcore2.AsyncNetworkStream:
        loop = asyncio.get_running_loop()
        # uvloop tries one address after another.
        more: Any = {"happy_eyeballs_delay": 0.25} if isinstance(loop, asyncio.BaseEventLoop) else {}
        with _connecting(timeout):
            _, wire = await loop.create_connection(_Wire, host, port, **more)
        return wire

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, *_arguments: Any, **_options: Any
    ) -> httpcore2.AsyncNetworkStream:
        with _connecting(timeout):
            connected = await _connected(path)
            _, wire = await asyncio.get_running_loop().create_unix_connection(_Wire, sock=connected)
        return wire


class _Wire(asyncio.Protocol, httpcore2.AsyncNetworkStream):
    """One connection: what came and was not read yet, and what is written once an answer is waited for."""

    _transport: asyncio.Transport

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._received = bytearray()
        self._held = bytearray()
        self._heard = 0.0
        self._over = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._lost = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        _forked_sockets.note(self)

    def data_received(self, data: bytes) -> None:
        self._received += data
        self._heard = self._loop.time()
        if len(self._received) > _UNREAD:
            self._transport.pause_reading()
        _wake(self._waiter)

    def eof_received(self) -> None:
        self._over = True
        _wake(self._waiter)

    def connection_lost(self, exc: Exception | None) -> None:
        self._over = True
        self._error = exc
        for future in (self._waiter, self._drained, self._lost):
            _wake(future)

    def pause_writing(self) -> None:
        self._drained = self._loop.create_future()

    def resume_writing(self) -> None:
        _wake(self._drained)
        self._drained = None

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._held:
            with suppress(httpcore2.WriteError):  # a server may answer before it has read all, and hang up
                await self._send(timeout)
        if not (self._received or self._over):
            self._waiter = self._loop.create_future()
            try:
                await _within(timeout, self._waiter, httpcore2.ReadTimeout)
            finally:
                self._waiter = None
        data = bytes(self._received[:max_bytes])
        if not data and self._error is not None:
            raise httpcore2.ReadError(str(self._error)) from self._error
        unread = len(self._received)
        del self._received[: len(data)]
        if unread > _UNREAD >= len(self._received):
            self._transport.resume_reading()
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._held += buffer
        if len(self._held) > HELD:
            await self._send(timeout)

    async def _send(self, timeout: float | None) -> None:
        data = bytes(self._held)
        self._held.clear()
        if self._transport.is_closing():
            raise httpcore2.WriteError("the connection is closed")
        self._transport.write(data)
        if self._drained is not None:
            await _within(timeout, self._drained, httpcore2.WriteTimeout)
            if self._over:
                raise httpcore2.WriteError("the connection was closed")

    async def aclose(self) -> None:
        self._transport.abort()  # close would first send what nobody wants to hear any more
        await asyncio.shield(self._lost)

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.AsyncNetworkStream:
        with _connecting(timeout):
            try:
                secured = await self._loop.start_tls(
                    self._transport, self, ssl_context, server_hostname=server_hostname
                )
            except BaseException:
                self._transport.abort()
                raise
        if secured is None:
            raise httpcore2.ConnectError("the connection was closed")
        self._transport = secured
        return self

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":
            # The loop tells at once, unless it was kept from it.
            unheard = self._loop.time() - self._heard > _HELD_UP
            return (
                self._over or bool(self._received) or (unheard and is_readable(self.get_extra_info("socket")))
            )
        return self._transport.get_extra_info(info)


@contextmanager
def _connecting(timeout: float | None) -> Iterator[None]:
    try:
        with anyio.fail_after(timeout):
            yield
    except TimeoutError as error:
        raise httpcore2.ConnectTimeout(str(error)) from error
    except OSError as error:  # an ssl.SSLError too
        raise httpcore2.ConnectError(str(error)) from error


async def _connected(path: str) -> socket.socket:
    # Not by the loop, which takes a full queue of connections for one that is being made.
    while True:
        new = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            new.setblocking(False)
            new.connect(path)
        except BlockingIOError:
            new.close()
            await asyncio.sleep(FULL_PAUSE)
        except BaseException:
            new.close()
            raise
        else:
            return new


async def _within(
    timeout: float | None, future: asyncio.Future[None], error: type[httpcore2.TimeoutException]
) -> None:
    if timeout is None:
        await future
        return
    try:
        with anyio.fail_after(timeout):
            await future
    except TimeoutError:
        raise error("the time of the call is used up") from None


def _wake(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)
