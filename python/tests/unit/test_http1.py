"""HTTP/1.1 on our connections: what is reused, what is not, and when is read."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from mlxcel import _pool
from scripted_http import KINDS, OK, UNFINISHED, asking

if TYPE_CHECKING:
    import socket
    from pathlib import Path

    from scripted_http import Answer

pytestmark = pytest.mark.parametrize("kind", KINDS)

CHUNKED = (
    b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nh\r\n1\r\ni\r\n0\r\n\r\n"
)
LAST = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: x, close\r\n\r\nhi"
OLD = b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi"
UNTIL_THE_END = b"HTTP/1.1 200 OK\r\n\r\nhi"


def test_one_connection_serves_requests_in_turn(tmp_path: Path, kind: str) -> None:
    with asking(tmp_path, kind, [OK, CHUNKED, OK], [OK]) as (server, ask):
        assert [ask().text for _ in range(3)] == ["hi"] * 3
        assert server.connections == 1


@pytest.mark.parametrize("end", [LAST, OLD, UNTIL_THE_END])
def test_a_connection_that_the_server_ends_is_replaced(tmp_path: Path, kind: str, end: bytes) -> None:
    with asking(tmp_path, kind, [end], [OK]) as (server, ask):
        assert [ask().text, ask().text] == ["hi", "hi"]
        assert server.connections == 2


def test_a_connection_that_the_client_says_it_will_end_is_replaced(tmp_path: Path, kind: str) -> None:
    with asking(tmp_path, kind, [OK, OK], [OK]) as (server, ask):
        assert [ask(headers={"Connection": "Close"}).text, ask().text] == ["hi", "hi"]
        assert server.connections == 2


def test_an_idle_connection_that_was_hung_up_is_noticed(tmp_path: Path, kind: str) -> None:
    with asking(tmp_path, kind, [OK], [OK]) as (server, ask):
        assert ask().text == "hi"
        assert server.hung_up.wait(10)
        if kind == "async":
            threading.Event().wait(0.2)  # the loop stands still, so that it is told by nobody
        assert ask().text == "hi"


@pytest.mark.parametrize("answer", [OK, CHUNKED, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"])
@pytest.mark.parametrize("more", [b"\r\n", b"\n", b"\r", b"x", b"HTTP/1.1 500 No\r\n\r\n", OK])
def test_what_nobody_asked_for_spoils_a_connection(
    tmp_path: Path, kind: str, answer: bytes, more: bytes
) -> None:
    with asking(tmp_path, kind, [answer + more, OK], [OK]) as (server, ask):
        assert ask().text in ("hi", "")
        assert ask().text == "hi"
        assert server.connections == 2


@pytest.mark.parametrize("seconds", [-1.0, 1e-9], ids=["when given back", "when taken again"])
def test_connections_that_were_idle_for_long_are_closed(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr(_pool, "_IDLE_SECONDS", seconds)
    with asking(tmp_path, kind, [OK, OK], [OK]) as (server, ask):
        assert [ask().text, ask().text] == ["hi", "hi"]
        assert server.connections == 2


@UNFINISHED
@pytest.mark.parametrize("lasting", [b"", b"Connection: close\r\n"])
def test_an_answer_before_all_is_read(tmp_path: Path, kind: str, lasting: bytes) -> None:
    refusal = b"HTTP/1.1 413 Too large\r\nContent-Length: 2\r\n%b\r\nno" % lasting
    with asking(tmp_path, kind, [refusal], [OK]) as (server, ask):
        assert ask(b"x" * 5_000_000).text == "no"
        assert ask().text == "hi"
        assert server.connections == 2


def test_pieces_are_handed_over_as_they_come(tmp_path: Path, kind: str) -> None:
    seen = threading.Semaphore(0)

    def stream(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for text in (b"one", b"two"):
            connection.sendall(b"3\r\n%b\r\n" % text)
            assert seen.acquire(timeout=10)
        connection.sendall(b"0\r\n\r\n")

    with asking(tmp_path, kind, [stream, OK]) as (server, ask):
        pieces: list[bytes] = []

        def note(piece: bytes) -> None:
            pieces.append(piece)
            seen.release()

        ask(on_piece=note)
        assert pieces == [b"one", b"two"]
        assert ask().text == "hi"
        assert server.connections == 1


def test_a_server_waits_for_a_client_that_reads_slowly(tmp_path: Path, kind: str) -> None:
    size = 20_000_000
    said = threading.Event()
    early: list[bool] = []

    def pour(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        connection.sendall(bytes(size))
        said.set()

    def dawdle(piece: bytes) -> Any:
        if not early:
            early.append(said.wait(0.3))

    with asking(tmp_path, kind, [pour]) as (_, ask):
        assert len(ask(on_piece=dawdle).content) == size
        assert early == [False]


@UNFINISHED
def test_a_stream_that_nobody_reads_to_its_end_costs_its_connection(tmp_path: Path, kind: str) -> None:
    def enough(piece: bytes) -> None:
        raise EOFError

    begun = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nh\r\n"

    def stream(connection: socket.socket) -> None:
        connection.sendall(begun)
        assert not connection.recv(1)  # until the client hangs up

    with asking(tmp_path, kind, [stream], [OK]) as (server, ask):
        with pytest.raises(EOFError):
            ask(on_piece=enough)
        assert server.hung_up.wait(10)
        assert ask().text == "hi"


def test_a_silent_server_is_given_up(tmp_path: Path, kind: str) -> None:
    def silence(connection: socket.socket) -> None:
        assert not connection.recv(1)

    script: list[Answer] = [silence]
    with asking(tmp_path, kind, script, [OK]) as (server, ask):
        with pytest.raises(httpx2.ReadTimeout):
            ask(timeout=0.2)
        assert server.hung_up.wait(10)
        assert ask().text == "hi"
