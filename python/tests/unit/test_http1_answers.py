"""Answers as they come in: what is read, what is no answer, and that none is read in two ways."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h11
import httptools
import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlxcel import _http1_answer
from mlxcel._http1_answer import Answer
from scripted_http import KINDS, OK, asking

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable
    from pathlib import Path

START = b"HTTP/1.1 200 OK\r\n"
IN_CHUNKS = START + b"Transfer-Encoding: chunked\r\n\r\n"
CUT_SHORT = START + b"Content-Length: 9\r\n\r\nhi"


def in_pieces(answer: bytes, size: int) -> list[bytes]:
    return [answer[at : at + size] for at in range(0, len(answer), size)]


def read(pieces: Iterable[bytes], *, to_head: bool = False) -> tuple[Answer, bytes]:
    """A whole answer, of a server that hangs up at the end."""
    coming = iter([*pieces, b""])
    answer = Answer(to_head=to_head)
    while not answer.takes_head(next(coming)):
        pass
    body = answer.first()
    while not answer.is_over:
        body += answer.more(next(coming))
    return answer, body


@pytest.mark.parametrize("size", [1, 2, 1000])
@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (OK, b"hi"),
        (START + b"content-length:0002\r\n\r\nhi", b"hi"),
        (START + b"Content-Length: 0\r\n\r\n", b""),
        (IN_CHUNKS + b"1\r\nh\r\n01\r\ni\r\n0\r\n\r\n", b"hi"),
        (IN_CHUNKS + b"2;a=b;c\r\nhi\r\n0\r\nExpires: never\r\nX:\r\n\r\n", b"hi"),
        (START + b"TRANSFER-ENCODING: Chunked \r\n\r\n0\r\n\r\n", b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", b""),
        (b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", b""),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 \r\nContent-Length: 5\r\n\r\n" + OK, b"hi"),
    ],
)
def test_answers_that_another_may_follow(answer: bytes, body: bytes, size: int) -> None:
    said, came = read(in_pieces(answer, size))
    assert came == body
    assert said.leaves_room()


@pytest.mark.parametrize("size", [1, 2, 1000])
@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (START + b"\r\nhi", b"hi"),
        (START + b"Connection: keep-alive\r\n\r\n", b""),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi", b"hi"),
        (START + b"Connection: CLOSE\r\nContent-Length: 2\r\n\r\nhi", b"hi"),
        (START + b"Connection: close\r\nConnection: x\r\nContent-Length: 2\r\n\r\nhi", b"hi"),
    ],
)
def test_answers_that_are_the_last(answer: bytes, body: bytes, size: int) -> None:
    said, came = read(in_pieces(answer, size))
    assert came == body
    assert not said.leaves_room()


@pytest.mark.parametrize("framing", [b"Content-Length: 5", b"Transfer-Encoding: chunked", b"X: y"])
def test_the_answer_to_a_head_has_no_body(framing: bytes) -> None:
    said, came = read([START + framing + b"\r\n\r\n"], to_head=True)
    assert came == b""
    assert said.leaves_room()
    said, came = read([START + framing + b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n"], to_head=True)
    assert came == b""
    assert not said.leaves_room()


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_request_leaves_its_connection(tmp_path: Path, kind: str) -> None:
    with asking(tmp_path, kind, [START + b"Content-Length: 5\r\n\r\n", OK]) as (server, ask):
        response = ask(method="HEAD")
        assert (response.content, response.headers["content-length"]) == (b"", "5")
        assert ask().text == "hi"
        assert server.connections == 1


@pytest.mark.parametrize("kind", KINDS)
def test_what_callers_see_of_a_head(tmp_path: Path, kind: str) -> None:
    head = b"HTTP/1.1 299 All is well\r\nX-Some:  a \t\r\nx-some:\r\nContent-Length: 2\r\n\r\nhi"
    with asking(tmp_path, kind, [head, b"HTTP/1.0 200\r\n\r\n"], [OK]) as (_, ask):
        response = ask()
        assert response.status_code == 299
        assert response.http_version == "HTTP/1.1"
        assert response.reason_phrase == "All is well"
        assert response.headers.raw == [(b"X-Some", b"a"), (b"x-some", b""), (b"Content-Length", b"2")]
        assert response.extensions["network_stream"].get_extra_info("nothing") is None
        response = ask()
        assert (response.http_version, response.reason_phrase) == ("HTTP/1.0", "")


@pytest.mark.parametrize("kind", KINDS)
def test_trailers_are_not_of_the_head(tmp_path: Path, kind: str) -> None:
    with asking(tmp_path, kind, [IN_CHUNKS + b"0\r\nX: y\r\n\r\n"]) as (_, ask):
        assert list(ask().headers) == ["transfer-encoding"]


NO_ANSWERS = {
    "nothing": b"",
    "half a head": START + b"Content-",
    "another protocol": b"SSH-2.0-OpenSSH\r\n",
    "another one": b"ICE/1.0 200 OK\r\n\r\n",
    "no protocol": b"nonsense\r\n\r\n",
    "an empty line": b"\r\n" + OK,
    "a version to come": b"HTTP/3.7 200 OK\r\n\r\n",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "a low status": b"HTTP/1.1 099 OK\r\n\r\n",
    "a control character": b"HTTP/1.1 200 O\0K\r\n\r\n",
    "a switch": b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "a switch to nothing": b"HTTP/1.1 101 Switching\r\n\r\n",
    "a space in a name": START + b"X y: z\r\n\r\n",
    "a space behind a name": START + b"X : z\r\n\r\n",
    "no name": START + b": z\r\n\r\n",
    "a folded line": START + b"X: y\r\n z\r\n\r\n",
    "lines without CR": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nhi",
    "a short body": CUT_SHORT,
    "no end of chunks": IN_CHUNKS + b"1\r\nh\r\n",
    "half an end of chunks": IN_CHUNKS + b"1\r\nh\r\n0\r\n",
    "half a chunk": IN_CHUNKS + b"2\r\nh",
    "a chunk that is too long": IN_CHUNKS + b"1\r\nhi\r\n0\r\n\r\n",
    "no size of a chunk": IN_CHUNKS + b"\r\n",
    "a size below zero": IN_CHUNKS + b"-1\r\n",
    "an endless size": IN_CHUNKS + b"f" * 17 + b"\r\n",
    "two lengths": START + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nhi",
    "two lengths in one": START + b"Content-Length: 2, 3\r\n\r\nhi",
    "a length below zero": START + b"Content-Length: -2\r\n\r\nhi",
    "no length": START + b"Content-Length:\r\n\r\nhi",
    "a length and chunks": START + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and a length": START + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
    "chunks twice": START + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "compressed chunks": START + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "another coding": START + b"Transfer-Encoding: identity\r\n\r\nhi",
    "chunks with a tab": START + b"Transfer-Encoding: chunked\t\r\n\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("answer", NO_ANSWERS.values(), ids=NO_ANSWERS)
@pytest.mark.parametrize("size", [1, 1000])
def test_what_is_no_answer(answer: bytes, size: int) -> None:
    with pytest.raises(httpx2.RemoteProtocolError):
        read(in_pieces(answer, size))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name", ["nothing", "a short body", "half a chunk", "no size of a chunk", "a switch"]
)
def test_no_answer_costs_the_connection(tmp_path: Path, kind: str, name: str) -> None:
    with asking(tmp_path, kind, [NO_ANSWERS[name]], [OK]) as (server, ask):
        with pytest.raises(httpx2.RemoteProtocolError):
            ask()
        assert ask().text == "hi"
        assert server.connections == 2


def test_what_is_told_of_a_server_that_hangs_up() -> None:
    with pytest.raises(httpx2.RemoteProtocolError, match="the server hung up without an answer"):
        read([])
    with pytest.raises(httpx2.RemoteProtocolError, match="hung up after 2 of the answer's 9 bytes"):
        read([CUT_SHORT])


@pytest.mark.parametrize("kind", KINDS)
def test_what_came_of_a_body_is_handed_over_first(tmp_path: Path, kind: str) -> None:
    pieces: list[bytes] = []
    with asking(tmp_path, kind, [CUT_SHORT]) as (_, ask), pytest.raises(httpx2.RemoteProtocolError):
        ask(on_piece=pieces.append)
    assert pieces == [b"hi"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("start", "more"),
    [
        (START, b"X: " + b"y" * 1000 + b"\r\n"),
        (START + b"X: ", b"y" * 1000),
        (b"HTTP/1.1 200 ", b"y" * 1000),
        (IN_CHUNKS + b"2\r\nhi\r\n0\r\n", b"X: " + b"y" * 1000 + b"\r\n"),
        (IN_CHUNKS + b"2\r\nhi\r\n0\r\nX: ", b"y" * 1000),
        (IN_CHUNKS + b"2;", b"y" * 1000),
    ],
)
def test_what_has_no_end_is_refused_in_time(tmp_path: Path, kind: str, start: bytes, more: bytes) -> None:
    said = 0

    def talk(connection: socket.socket) -> None:
        nonlocal said
        connection.sendall(start)
        while True:
            connection.sendall(more)  # until the client hangs up
            said += len(more)

    with asking(tmp_path, kind, [talk], [OK]) as (server, ask):
        with pytest.raises(httpx2.RemoteProtocolError, match="not end"):
            ask()
        assert server.hung_up.wait(10)
        assert said < 2_000_000
        assert ask().text == "hi"


def test_a_large_head_is_read() -> None:
    fields = b"".join(b"X-%d: %b\r\n" % (n, b"y" * 1000) for n in range(90))
    answer, body = read(in_pieces(START + fields + b"Content-Length: 2\r\n\r\nhi", 4096))
    assert len(answer.fields) == 91
    assert body == b"hi"


@pytest.mark.parametrize("callback", ["on_header", "on_status", "on_message_complete", "on_body"])
@pytest.mark.parametrize("handling", [False, True])
def test_an_interrupt_amid_an_answer_comes_out(
    monkeypatch: pytest.MonkeyPatch, callback: str, handling: bool
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_http1_answer._Said, callback, interrupted)
    whole = IN_CHUNKS + b"1\r\nh\r\n0\r\n\r\n"
    try:
        if handling:
            raise LookupError  # noqa: TRY301
        with pytest.raises(KeyboardInterrupt):
            read([whole])
    except LookupError:
        # Lost to us, but never taken for an answer, for an error of the server's, or for what was handled.
        with pytest.raises(httptools.HttpParserCallbackError):
            read([whole])


def h11_reads(data: bytes, method: str) -> Any:
    """What h11 makes of an answer; None for an error."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=100_000)
    connection.send(h11.Request(method=method, target="/", headers=[("host", "h")]))
    connection.send(h11.EndOfMessage())
    head: Any = None
    body = b""
    try:
        for piece in (data, b""):
            connection.receive_data(piece)
            while (event := connection.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
                match event:
                    case h11.Response():
                        fields = lowered(event.headers.raw_items())
                        head = event.status_code, b"HTTP/" + event.http_version, event.reason, fields
                    case h11.Data():
                        body += event.data
                    case _:
                        break
            if connection.their_state in (h11.DONE, h11.MUST_CLOSE, h11.CLOSED):
                return head and (*head, body, not connection.trailing_data[0])
    except h11.RemoteProtocolError:
        pass
    return None


def we_read(pieces: list[bytes], method: str) -> Any:
    try:
        answer, body = read(pieces, to_head=method == "HEAD")
    except httpx2.RemoteProtocolError:
        return None
    fields = lowered(answer.fields)
    return answer.status, answer.version, answer.reason, fields, body, answer.leaves_room()


def lowered(fields: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    # h11 writes chunked small.
    return [
        (name, value.lower() if name.lower() == b"transfer-encoding" else value) for name, value in fields
    ]


STARTS = [b"HTTP/1.1 200 OK", b"HTTP/1.0 200", b"HTTP/1.1 204 No", b"HTTP/1.1 100 C\r\n\r\nHTTP/1.1 500 a b"]
FIELDS = [
    b"Content-Length: 2",
    b"content-length: 0 ",
    b"Transfer-Encoding: chunked",
    b"transfer-encoding: Chunked\t",
    b"Connection: close",
    b"Upgrade: x",
    b"X: a  b\t",
    b" folded",
]
BODIES = [
    b"hi",
    b"1\r\nh\r\n1\r\ni\r\n0\r\n\r\n",
    b"2;a=b\r\nhi\r\n0\r\nT: v\r\n\r\n",
    b"hi" + OK,
    b"0\r\n\r\n" + OK,
    b"2\r\nhi\r\n0\r\n\r\n\r\n",
]
NOISE = st.sampled_from([b"", b"\r", b"\n", b"\r\n", b" ", b"\t", b":", b"\0", b"0", b"\xff", b",", b";"])


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """An answer, some of it left out or put in."""
    fields = draw(st.lists(st.sampled_from(FIELDS), max_size=3))
    data = b"\r\n".join([draw(st.sampled_from(STARTS)), *fields, b"", draw(st.sampled_from(BODIES))])
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(NOISE) + data[at + draw(st.integers(0, 2)) :]
    return data


@settings(max_examples=500)
@given(damaged(), st.sampled_from(["POST", "HEAD"]), st.integers(1, 40))
def test_what_is_read_is_what_h11_reads(data: bytes, method: str, size: int) -> None:
    ours = we_read([data] if data else [], method)
    if ours is not None:
        *theirs, lasts = h11_reads(data, method)
        assert list(ours[:-1]) == theirs
        assert lasts or not ours[-1]
    again = we_read(in_pieces(data, size), method)
    assert (ours and ours[:-1]) == (again and again[:-1])
