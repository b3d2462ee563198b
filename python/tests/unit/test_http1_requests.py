"""Requests as they go out: what they may hold, and how their bodies are framed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h11
import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlxcel import _http1_request
from mlxcel._http1_request import OutgoingRequest
from scripted_http import KINDS, OK, UNFINISHED, asking

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from scripted_http import Server

URL = httpx2.URL("http://h/v1")
HOST = ("Host", "h")


def outgoing(headers: Any, method: str = "POST", url: httpx2.URL = URL) -> OutgoingRequest:
    return OutgoingRequest(httpx2.Request(method, url, headers=headers, stream=httpx2.ByteStream(b"")))


def test_a_head_says_what_was_given() -> None:
    fields = [("x-B", "1"), HOST, ("X-b", ""), ("Content-Length", "7"), ("x-c", "a \tä")]
    sent = outgoing([(name, value.encode()) for name, value in fields])
    head = "POST /v1 HTTP/1.1\r\nHost: h\r\nx-B: 1\r\nX-b: \r\nx-c: a \tä\r\nContent-Length: 7\r\n\r\n"
    assert sent.head.decode() == head
    assert sent.keeps_alive


@pytest.mark.parametrize("connection", ["close", "Close", "x ,close"])
def test_a_request_that_will_be_the_last(connection: str) -> None:
    assert not outgoing([HOST, ("Connection", "keep-alive"), ("connection", connection)]).keeps_alive


def test_heads_that_differ_in_their_length_alone_are_checked_once() -> None:
    _http1_request._checked_head.cache_clear()
    for length in (b"1", b"22", b"333"):
        sent = outgoing([HOST, ("Content-Length", length)])
        assert b"Content-Length: %b\r\n\r\n" % length in sent.head
    assert _http1_request._checked_head.cache_info().misses == 1


@pytest.mark.parametrize(
    "field",
    [
        *[(name, b"v") for name in (b"", b"a b", b"a:b", b"a\r\nb", b"a\nb", b"a\0", b" a", b"a ", b"\xff")],
        *[
            (b"a", value)
            for value in (b"a\r\nb: c", b"a\nb", b"a\rb", b"a\0b", b"a\vb", b"a\fb", b" a", b"a\t")
        ],
        *[(b"content-length", value) for value in (b"", b"-1", b"+1", b"1 ", b"1_0", b"0x1", b"9" * 21)],
        *[(b"transfer-encoding", value) for value in (b"", b"gzip", b"gzip, chunked", b"identity")],
        (b"host", b"other"),
    ],
)
def test_headers_that_are_refused(field: tuple[bytes, bytes]) -> None:
    with pytest.raises(httpx2.LocalProtocolError):
        outgoing([HOST, field])


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [HOST, ("Content-Length", "1"), ("content-length", "2")],
        [HOST, ("Content-Length", "1"), ("Transfer-Encoding", "chunked")],
        [HOST, ("Transfer-Encoding", "chunked"), ("transfer-encoding", "chunked")],
    ],
)
def test_heads_that_are_refused(fields: list[tuple[str, str]]) -> None:
    with pytest.raises(httpx2.LocalProtocolError):
        outgoing(fields)


@pytest.mark.parametrize("method", ["", "A B", "A\r\nB", "Ä", "A\0"])
def test_methods_that_are_refused(method: str) -> None:
    with pytest.raises(httpx2.LocalProtocolError):
        outgoing([HOST], method)


@pytest.mark.parametrize("target", [b"", b"/a b", b"/a\r\nb", b"/\0", b"/\xff"])
def test_targets_that_are_refused(target: bytes) -> None:
    class Url(httpx2.URL):
        @property
        def raw_path(self) -> bytes:
            return target

    request = httpx2.Request("GET", URL, headers=[HOST], stream=httpx2.ByteStream(b""))
    request.url = Url(URL)
    with pytest.raises(httpx2.LocalProtocolError):
        OutgoingRequest(request)


BYTES = st.one_of(st.text("aZ9 :\t\r\n\0-é", max_size=4).map(str.encode), st.binary(max_size=4))


@given(st.text("AZ -\r\n\0é", max_size=3), st.lists(st.tuples(BYTES, BYTES), max_size=3))
def test_nothing_passes_that_h11_refuses(method: str, fields: list[tuple[bytes, bytes]]) -> None:
    try:
        sent = outgoing([HOST, *fields], method)
    except httpx2.LocalProtocolError:
        return
    request = h11.Request(method=method.upper(), target="/v1", headers=[(b"Host", b"h"), *fields])
    assert sent.head == h11.Connection(h11.CLIENT).send(request)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_refused_is_not_sent(tmp_path: Path, kind: str) -> None:
    with asking(tmp_path, kind, [OK], [OK]) as (server, ask):
        with pytest.raises(httpx2.LocalProtocolError):
            ask(headers={"x": "a\r\nb: c"})
        assert not any(server.requests)


def parts_for(kind: str, *parts: bytes) -> Any:
    """A body that comes in parts, as a client of this kind takes it."""

    def blocking() -> Iterator[bytes]:
        yield from parts

    async def awaited() -> AsyncIterator[bytes]:
        for part in parts:
            yield part

    return blocking() if kind == "blocking" else awaited()


def when_all_came(server: Server, end: bytes) -> Callable[[socket.socket], None]:
    """Answers a request that ends so."""

    def answer(connection: socket.socket) -> None:
        server.read_until(connection, end)
        connection.sendall(OK)

    return answer


def listens(connection: socket.socket) -> None:
    """Says nothing until the client hangs up."""
    while connection.recv(65536):
        pass


@pytest.mark.parametrize("kind", KINDS)
def test_a_body_without_a_length_goes_in_chunks(tmp_path: Path, kind: str) -> None:
    script: list[Any] = []
    with asking(tmp_path, kind, script) as (server, ask):
        script += [when_all_came(server, b"0\r\n\r\n"), OK]
        assert ask(parts_for(kind, b"one", b"", b"x" * 26)).text == "hi"
        head, _, body = server.requests[0].partition(b"\r\n\r\n")
        assert b"\r\ntransfer-encoding: chunked" in head.lower()
        assert b"content-length" not in head.lower()
        assert body == b"3\r\none\r\n1a\r\n" + b"x" * 26 + b"\r\n0\r\n\r\n"
        assert ask().text == "hi"
        assert server.connections == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_body_with_a_length_goes_as_it_is(tmp_path: Path, kind: str) -> None:
    script: list[Any] = []
    with asking(tmp_path, kind, script) as (server, ask):
        script += [when_all_came(server, b"two")]
        assert ask(parts_for(kind, b"one", b"", b"two"), headers={"Content-Length": "6"}).text == "hi"
        assert server.requests[0].endswith(b"\r\n\r\nonetwo")


@UNFINISHED
@pytest.mark.parametrize("length", ["5", "7"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_body_of_another_length_than_was_said(tmp_path: Path, kind: str, length: str) -> None:
    with asking(tmp_path, kind, [listens], [OK]) as (server, ask):
        with pytest.raises(httpx2.LocalProtocolError, match="Content-Length"):
            ask(parts_for(kind, b"one", b"two"), headers={"Content-Length": length})
        assert server.hung_up.wait(10)
        assert ask().text == "hi"


def test_a_body_that_nobody_announced() -> None:
    with pytest.raises(httpx2.LocalProtocolError):
        outgoing([HOST]).part(b"x")
