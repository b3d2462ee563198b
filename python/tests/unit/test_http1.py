"""HTTP/1.1 on our connections: what is reused, what is not, and what servers may do."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from typing import TYPE_CHECKING

import httpx2
import pytest

from mlxcel import _pool
from mlxcel._connections import PerLoopTransport, PerProcessTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
CHUNKED = (
    b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nh\r\n1\r\ni\r\n0\r\n\r\n"
)
UNTIL_THE_END = b"HTTP/1.0 200 OK\r\n\r\nhi"
LAST = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"
CUT_SHORT = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi"


class Server:
    """Says a script on each connection: an answer a request, then it hangs up."""

    def __init__(self, path: str, *scripts: list[bytes]) -> None:
        self.connections = 0
        self.hung_up = threading.Event()
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
                with connection:
                    for answer in script:
                        self._read_request(connection)
                        connection.sendall(answer)
                self.hung_up.set()

    def _read_request(self, connection: socket.socket) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            if not (more := connection.recv(65536)):
                raise OSError("the client hung up")
            data += more

    def close(self) -> None:
        self._listener.close()


@contextlib.contextmanager
def client(path: str, kind: str) -> Iterator[Callable[..., str]]:
    """A function that sends a request and gives the text of the answer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if kind == "blocking":
        with httpx2.Client(transport=PerProcessTransport(path, context)) as blocking:
            yield lambda content=b"": blocking.post("http://h/", content=content).text
        return
    with asyncio.Runner() as runner:
        awaited = httpx2.AsyncClient(transport=PerLoopTransport(path, context))

        async def ask(content: bytes = b"") -> str:
            return (await awaited.post("http://h/", content=content)).text

        yield lambda content=b"": runner.run(ask(content))
        runner.run(awaited.aclose())


@pytest.fixture(params=["blocking", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@contextlib.contextmanager
def asking(folder: Path, kind: str, *scripts: list[bytes]) -> Iterator[tuple[Server, Callable[..., str]]]:
    path = str(folder / "s")
    server = Server(path, *scripts)
    try:
        with client(path, kind) as ask:
            yield server, ask
    finally:
        server.close()


def test_one_connection_serves_requests_in_turn(tmp_path: Path, kind: str) -> None:
    with asking(tmp_path, kind, [OK, CHUNKED, OK], [OK]) as (server, ask):
        assert [ask() for _ in range(3)] == ["hi"] * 3
        assert server.connections == 1


@pytest.mark.parametrize("end", [LAST, UNTIL_THE_END])
def test_a_connection_that_the_server_ends_is_replaced(tmp_path: Path, kind: str, end: bytes) -> None:
    with asking(tmp_path, kind, [end], [OK]) as (server, ask):
        assert [ask(), ask()] == ["hi", "hi"]
        assert server.connections == 2


def test_an_idle_connection_that_was_hung_up_is_noticed(tmp_path: Path, kind: str) -> None:
    with asking(tmp_path, kind, [OK], [OK]) as (server, ask):
        assert ask() == "hi"
        assert server.hung_up.wait(10)
        if kind == "async":
            threading.Event().wait(0.2)  # the loop stands still, so that it is told by nobody
        assert ask() == "hi"


def test_what_nobody_asked_for_spoils_a_connection(tmp_path: Path, kind: str) -> None:
    with asking(tmp_path, kind, [OK + b"HTTP/1.1 500 No\r\n\r\n", OK], [OK]) as (server, ask):
        assert [ask(), ask()] == ["hi", "hi"]
        assert server.connections == 2


@pytest.mark.parametrize("seconds", [-1.0, 1e-9], ids=["when given back", "when taken again"])
def test_connections_that_were_idle_for_long_are_closed(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr(_pool, "_IDLE_SECONDS", seconds)
    with asking(tmp_path, kind, [OK, OK], [OK]) as (server, ask):
        assert [ask(), ask()] == ["hi", "hi"]
        assert server.connections == 2


def test_an_answer_before_all_is_read(tmp_path: Path, kind: str) -> None:
    refusal = b"HTTP/1.1 413 Too large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno"
    with asking(tmp_path, kind, [refusal], [OK]) as (_, ask):
        assert ask(b"x" * 5_000_000) == "no"
        assert ask() == "hi"


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-", CUT_SHORT, b"nonsense\r\n\r\n"])
def test_what_is_no_answer(tmp_path: Path, kind: str, answer: bytes) -> None:
    with asking(tmp_path, kind, [answer], [OK]) as (_, ask):
        with pytest.raises(httpx2.RemoteProtocolError):
            ask()
        assert ask() == "hi"
