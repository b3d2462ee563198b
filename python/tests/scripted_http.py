"""A server that says bytes from a script, and the clients' own transports to ask it with."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import httpx2
import pytest
from anyio.from_thread import start_blocking_portal

from mlxcel._connections import PerLoopTransport, PerProcessTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Answer: TypeAlias = "bytes | Callable[[socket.socket], None]"

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"

_SECONDS = 10.0
UNFINISHED = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
"""trio warns of httpx2's own generators that are not read to their end."""

KINDS = ["blocking", "async", "trio"]


class Server:
    """Says a script on each connection: an answer a request, then it hangs up."""

    def __init__(self, path: str, *scripts: list[Answer]) -> None:
        self.connections = 0
        self.hung_up = threading.Event()
        self.requests: list[bytes] = []
        self._scripts = scripts
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        for script in self._scripts:
            with contextlib.suppress(OSError):
                connection, _ = self._listener.accept()
                self.connections += 1
                try:
                    self._say(script, connection)
                finally:
                    connection.close()
                    self.hung_up.set()

    def _say(self, script: list[Answer], connection: socket.socket) -> None:
        for answer in script:
            self.requests.append(b"")
            self.read_until(connection, b"\r\n\r\n")
            if isinstance(answer, bytes):
                connection.sendall(answer)
            else:
                answer(connection)

    def read_until(self, connection: socket.socket, end: bytes) -> None:
        """Read on until the last request has `end` in it."""
        while end not in self.requests[-1]:
            if not (more := connection.recv(65536)):
                raise OSError("the client hung up")
            self.requests[-1] += more

    def close(self) -> None:
        self._listener.close()


class Ask(Protocol):
    """Sends a request; the answer, with its body, whose pieces are shown as they come."""

    def __call__(
        self,
        content: Any = b"",
        method: str = "POST",
        headers: Any = None,
        on_piece: Callable[[bytes], Any] = ...,
        timeout: float = ...,
    ) -> httpx2.Response: ...


def _asks_blocking(client: httpx2.Client) -> Ask:
    def ask(
        content: Any = b"",
        method: str = "POST",
        headers: Any = None,
        on_piece: Callable[[bytes], Any] = len,
        timeout: float = _SECONDS,
    ) -> httpx2.Response:
        with client.stream(
            method, "http://h/", content=content, headers=headers, timeout=timeout
        ) as response:
            pieces = []
            for piece in response.iter_raw():
                pieces.append(piece)
                on_piece(piece)
        return _whole(response, b"".join(pieces))

    return ask


def _asks_awaiting(client: httpx2.AsyncClient, run: Callable[..., httpx2.Response]) -> Ask:
    async def asked(
        content: Any, method: str, headers: Any, on_piece: Callable[[bytes], Any], timeout: float
    ) -> httpx2.Response:
        async with client.stream(
            method, "http://h/", content=content, headers=headers, timeout=timeout
        ) as response:
            pieces = []
            async for piece in response.aiter_raw():
                pieces.append(piece)
                on_piece(piece)
        return _whole(response, b"".join(pieces))

    def ask(
        content: Any = b"",
        method: str = "POST",
        headers: Any = None,
        on_piece: Callable[[bytes], Any] = len,
        timeout: float = _SECONDS,
    ) -> httpx2.Response:
        return run(asked, content, method, headers, on_piece, timeout)

    return ask


def _whole(response: httpx2.Response, content: bytes) -> httpx2.Response:
    response._content = content
    return response


@contextlib.contextmanager
def _client(path: str, kind: str) -> Iterator[Ask]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if kind == "blocking":
        with httpx2.Client(transport=PerProcessTransport(path, context)) as client:
            yield _asks_blocking(client)
        return
    awaited = httpx2.AsyncClient(transport=PerLoopTransport(path, context))
    if kind == "trio":
        with start_blocking_portal("trio") as portal:
            yield _asks_awaiting(awaited, portal.call)
            portal.call(awaited.aclose)
        return
    with asyncio.Runner() as runner:
        yield _asks_awaiting(awaited, lambda function, *arguments: runner.run(function(*arguments)))
        runner.run(awaited.aclose())


@contextlib.contextmanager
def asking(folder: Path, kind: str, *scripts: list[Answer]) -> Iterator[tuple[Server, Ask]]:
    """A server with a script for each connection, and a client of it of one of `KINDS`."""
    path = str(folder / "s")
    server = Server(path, *scripts)
    try:
        with _client(path, kind) as ask:
            yield server, ask
    finally:
        server.close()
