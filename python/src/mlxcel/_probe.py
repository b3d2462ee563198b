"""Small questions to a server of ours, with as little machinery as possible.

They are asked many times while a model loads, and while the SDK is imported: a
few lines of HTTP/1.0 (no keep-alive, no chunks) on a bare socket cost a fraction
of `http.client`. No proxy is in their way.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ANSWER_TIMEOUT", "Address", "Probe"]

ANSWER_TIMEOUT = 5.0
"""Seconds that a server gets to answer a small question."""

_BODY_LIMIT = 1 << 20
_LEAST_TIMEOUT = 0.01


@dataclass(frozen=True)
class Address:
    """Where a server listens: a Unix socket, or a host and a port."""

    socket_path: Path | None = None
    host: str = "127.0.0.1"
    port: int = 0

    @property
    def root_url(self) -> str:
        if self.socket_path is not None:
            return "http://localhost"
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - only read
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def __str__(self) -> str:
        return f"unix:{self.socket_path}" if self.socket_path is not None else self.root_url


class Probe:
    """Authenticated GETs to one address, from one thread at a time."""

    def __init__(self, address: Address, api_key: str) -> None:
        self.address = address
        self._api_key = api_key
        self._socket: socket.socket | None = None

    def get(
        self, path: str, *, timeout: float = ANSWER_TIMEOUT, key: str | None = None
    ) -> tuple[int, object]:
        """Status and JSON body (None when it is not JSON). OSError when nobody answers, or not in HTTP."""
        deadline = time.monotonic() + timeout
        request = (
            f"GET {path} HTTP/1.0\r\nHost: localhost\r\n"
            f"Authorization: Bearer {key or self._api_key}\r\nConnection: close\r\n\r\n"
        )
        with self._connect(timeout) as connection:
            self._socket = connection
            try:
                connection.sendall(request.encode())
                reply = b""
                while len(reply) < _BODY_LIMIT:
                    connection.settimeout(max(deadline - time.monotonic(), _LEAST_TIMEOUT))
                    chunk = connection.recv(65536)
                    if not chunk:
                        break
                    reply += chunk
            finally:
                self._socket = None
        return _parse(reply)

    def interrupt(self) -> None:
        """End a question that is being asked; may be called from another thread."""
        connection = self._socket
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _connect(self, timeout: float) -> socket.socket:
        timeout = max(timeout, _LEAST_TIMEOUT)
        path = self.address.socket_path
        if path is None:
            host, _, port = self.address.root_url.removeprefix("http://").rpartition(":")
            return socket.create_connection((host.strip("[]"), int(port)), timeout)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(timeout)
            connection.connect(str(path))
        except BaseException:
            connection.close()
            raise
        return connection


def _parse(reply: bytes) -> tuple[int, object]:
    head, end, body = reply.partition(b"\r\n\r\n")
    version, _, rest = head.partition(b" ")
    status = rest[:3]
    if not end or not version.startswith(b"HTTP/") or not status.isdigit():
        raise ConnectionError("the answer is cut short, or not HTTP")
    try:
        return int(status), json.loads(body)
    except (ValueError, RecursionError):  # the latter from a stranger's thousand brackets
        return int(status), None
