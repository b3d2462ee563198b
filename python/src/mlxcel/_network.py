"""The sockets below the connection pools.

Each blocking wait is cut at the deadline of the call (`_deadline.current`), and
each socket is noted for `_forked_sockets`.
"""

from __future__ import annotations

import select
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import httpcore2

from . import _deadline, _forked_sockets

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable

__all__ = ["FULL_PAUSE", "HELD", "AnyBackend", "Backend", "is_readable"]

FULL_PAUSE = 0.01
"""Seconds until a socket whose queue of connections is full is tried again."""
HELD = 64 * 1024
"""Bytes of a request that wait for what follows, so that its head and a short body go out as one."""


class Backend(httpcore2.SyncBackend):
    """Blocking sockets whose every wait ends at the deadline of the call."""

    def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, *arguments: Any, **options: Any
    ) -> httpcore2.NetworkStream:
        limit = _limited(timeout, httpcore2.ConnectTimeout)
        return _BoundedStream(super().connect_tcp(host, port, limit, *arguments, **options))

    def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002 - ours are never given any
    ) -> httpcore2.NetworkStream:
        return _UnixStream(_connected(path, timeout))


def _connected(path: str, timeout: float | None) -> socket.socket:
    # Not by httpcore2, whose attempt leaves the socket open when it fails.
    began = time.monotonic()
    while True:
        new = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            new.settimeout(_limited(timeout, httpcore2.ConnectTimeout))
            new.connect(path)
        except BlockingIOError as error:
            new.close()
            # The queue of connections is full: over TCP the kernel would wait.
            if timeout is not None and time.monotonic() - began >= timeout:
                raise httpcore2.ConnectTimeout(str(error)) from error
            time.sleep(FULL_PAUSE)
        except OSError as error:
            new.close()
            kind = httpcore2.ConnectTimeout if isinstance(error, TimeoutError) else httpcore2.ConnectError
            raise kind(str(error)) from error
        except BaseException:
            new.close()
            raise
        else:
            return new


class _UnixStream(httpcore2.NetworkStream):
    """Bounded by the deadline; on the path of every call to a server of ours, so with little on it."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._held = b""
        _forked_sockets.note(self)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._held:
            with suppress(httpcore2.WriteError):  # a server may answer before it has read all, and hang up
                self._send(timeout)
        limit = _limited(timeout, httpcore2.ReadTimeout)
        try:
            self._wait_for(limit)
            return self._socket.recv(max_bytes)
        except TimeoutError as error:
            raise httpcore2.ReadTimeout(str(error)) from error
        except OSError as error:
            raise httpcore2.ReadError(str(error)) from error

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._held += buffer
        if len(self._held) > HELD:
            self._send(timeout)

    def _send(self, timeout: float | None) -> None:
        data, self._held = self._held, b""
        limit = _limited(timeout, httpcore2.WriteTimeout)
        try:
            self._wait_for(limit)
            # The timeout holds for all of it together.
            self._socket.sendall(data)
        except TimeoutError as error:
            raise httpcore2.WriteTimeout(str(error)) from error
        except OSError as error:
            raise httpcore2.WriteError(str(error)) from error

    def _wait_for(self, limit: float | None) -> None:
        if limit != self._socket.gettimeout():  # setting it is a system call
            self._socket.settimeout(limit)

    def close(self) -> None:
        self._socket.close()

    def get_extra_info(self, info: str) -> Any:
        if info == "socket":
            return self._socket
        if info == "is_readable":
            return is_readable(self._socket)
        return None


def is_readable(connection: socket.socket) -> bool:
    """Whether something waits to be read, on an idle connection its end."""
    if connection.fileno() < 0:
        return True
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))


class _BoundedStream(httpcore2.NetworkStream):
    """A stream of httpcore2's own, plain or with TLS, bounded by the deadline."""

    def __init__(self, stream: httpcore2.NetworkStream) -> None:
        self._stream = stream
        _forked_sockets.note(self)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        limit = _limited(timeout, httpcore2.ReadTimeout)
        return self._stream.read(max_bytes, limit)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        limit = _limited(timeout, httpcore2.WriteTimeout)
        self._stream.write(buffer, limit)

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


class AnyBackend(httpcore2.AnyIOBackend):
    """Sockets that are noted, for loops other than asyncio's; deadlines are the business of cancel scopes."""

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
