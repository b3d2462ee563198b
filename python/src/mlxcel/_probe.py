"""Small questions to a server of ours, with as little machinery as possible.

They are asked while the SDK may not be imported yet, so they speak HTTP through
the standard library. One question is one connection, and knows no proxy.
"""

from __future__ import annotations

import contextlib
import json
import socket
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ANSWER_TIMEOUT", "NO_ANSWER", "Address", "Probe"]

ANSWER_TIMEOUT = 5.0
"""Seconds that a server gets to answer a small question."""

NO_ANSWER = (OSError, HTTPException)
"""What a question raises when nobody answers it."""

_BODY_LIMIT = 1 << 20


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
        self._connection: HTTPConnection | None = None

    def get(
        self, path: str, *, timeout: float = ANSWER_TIMEOUT, key: str | None = None
    ) -> tuple[int, object]:
        """Status and JSON body (None when it is not JSON). Raises one of `NO_ANSWER` when nobody answers."""
        connection = self._connection = self._connect(timeout)
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {key or self._api_key}"})
            response = connection.getresponse()
            raw = response.read(_BODY_LIMIT)
        finally:
            self._connection = None
            connection.close()
        try:
            return response.status, json.loads(raw)
        except ValueError:
            return response.status, None

    def interrupt(self) -> None:
        """End a question that is being asked; may be called from another thread."""
        connection = self._connection
        if connection is not None and connection.sock is not None:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    def _connect(self, timeout: float) -> HTTPConnection:
        if self.address.socket_path is not None:
            return _UnixConnection(str(self.address.socket_path), timeout)
        url = self.address.root_url.removeprefix("http://")
        host, _, port = url.rpartition(":")
        return HTTPConnection(host.strip("[]"), int(port), timeout=timeout)


class _UnixConnection(HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.sock.settimeout(self.timeout)
            self.sock.connect(self._path)
        except BaseException:
            self.sock.close()
            raise
