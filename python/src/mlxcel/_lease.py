"""A user's hold on a shared server: a connection that the server sees end, however the user ends."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import weakref
from http.client import HTTPException, HTTPResponse

from .errors import MlxcelServerError

__all__ = ["Lease", "LeaseRefusedError"]

_ANSWER_SECONDS = 10.0
_LINE_BYTES = 4096


class LeaseRefusedError(MlxcelServerError):
    """The server gives no lease (now)."""


class Lease:
    """Held from construction until `close`, collection, or the end of this process.

    A thread reads what the server sends to keep the connection alive, so that
    its end is noticed here as well. A forked child does not hold its parent's
    lease: its copy of the connection is closed.

    Raises OSError when nobody answers, LeaseRefusedError when the server says no.
    """

    def __init__(self, path: str, api_key: str) -> None:
        self.pid = os.getpid()
        self._lost = _Flag()
        self._socket = _request(path, api_key)
        self._thread = threading.Thread(
            target=_watch, args=(self._socket, self._lost), name="mlxcel-lease", daemon=True
        )
        _held.add(self)
        self._thread.start()

    @property
    def held(self) -> bool:
        """Whether it still counts, in this process."""
        return not self._lost.up and self.pid == os.getpid()

    def close(self) -> None:
        """Give it back. In a forked child the parent's stays."""
        if self.pid != os.getpid():
            return
        with contextlib.suppress(OSError):  # wakes the thread, which closes it
            self._socket.shutdown(socket.SHUT_RDWR)
        if self._thread is not threading.current_thread():  # the collector may run there
            self._thread.join()

    def forget(self) -> None:
        """In a forked child: drop the parent's connection without ending it."""
        self._lost.up = True
        with contextlib.suppress(OSError):
            os.close(self._socket.detach())

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()


_held: weakref.WeakSet[Lease] = weakref.WeakSet()


def _forget_all() -> None:
    for lease in list(_held):
        lease.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)


def _request(path: str, api_key: str) -> socket.socket:
    """Ask for a lease and read its first line; the connection is the lease."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(_ANSWER_SECONDS)
        connection.connect(path)
        head = f"GET /lease HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {api_key}\r\n\r\n"
        connection.sendall(head.encode("ascii"))
        response = HTTPResponse(connection, method="GET")
        try:
            response.begin()
            line = response.readline(_LINE_BYTES)
        except HTTPException as error:
            raise ConnectionError(f"the answer to GET /lease is not HTTP: {error}") from error
        finally:
            response.close()  # its reader; the connection stays open
        connection.settimeout(None)
    except BaseException:
        connection.close()
        raise
    if response.status == 200 and line.startswith(b"{"):
        return connection
    connection.close()
    said = line.decode("utf-8", errors="replace").strip()
    raise LeaseRefusedError(f"the shared server gave no lease ({response.status}): {said}")


class _Flag:
    """What the watching thread tells; no lock in it that a fork could find taken."""

    up = False


def _watch(connection: socket.socket, lost: _Flag) -> None:
    with connection, contextlib.suppress(OSError):
        while connection.recv(_LINE_BYTES):
            pass
    lost.up = True
