"""What a server says, read by llhttp. No I/O.

llhttp is given heads, and of bodies those in chunks. It could not be told that the answer to a HEAD has no
body, and does not say where in the bytes that it was given an answer ends.
"""

from __future__ import annotations

import re
import sys
from typing import TypeAlias

import httptools
import httpx2

from ._http1_request import says_close

__all__ = ["Answer"]

_MOST_BYTES = 100 * 1024
"""Of a head, and of chunks without content."""
_BLANK_LINE = b"\r\n\r\n"
_CONTROL = re.compile(rb"[\x00\v\f]")
"""What llhttp lets pass in a reason."""


class Answer:
    """The answer to one request: first its head, then its body."""

    def __init__(self, *, to_head: bool) -> None:
        self._to_head = to_head
        self._unread = b""
        self._body: _Body = _Counted(0)
        self._keeps_alive = False
        self.status = 0
        self.version = b""
        self.reason = b""
        self.fields: list[tuple[bytes, bytes]] = []

    def takes_head(self, data: bytes) -> bool:
        """Read on, where nothing is the end of the connection; whether all of the head is there."""
        if not data:
            raise httpx2.RemoteProtocolError("the server hung up without an answer")
        self._unread += data
        while True:
            unread = self._unread
            if not b"HTTP/".startswith(unread[:5]):
                raise httpx2.RemoteProtocolError(f"the server does not speak HTTP/1.1: {unread[:40]!r}")
            end = unread.find(_BLANK_LINE)
            if end < 0:
                if len(unread) > _MOST_BYTES or b"\n" in unread.replace(b"\r\n", b""):
                    raise httpx2.RemoteProtocolError("the head of the answer does not end")
                return False
            end += len(_BLANK_LINE)
            self._unread = unread[end:]
            if self._is_final(unread[:end]):
                return True

    def _is_final(self, head: bytes) -> bool:
        said = _Said()
        parser = httptools.HttpResponseParser(said)
        _feed(parser, head)
        status = parser.get_status_code()
        if status < 100 or _CONTROL.search(said.reason):
            raise httpx2.RemoteProtocolError(f"the server answered with {status} {said.reason!r}")
        if status < 200:
            return False  # more is to come
        self.status = status
        self.version = head[:8]
        self.reason = said.reason
        self.fields = [(name, value.rstrip()) for name, value in said.fields]
        self._keeps_alive = self.version == b"HTTP/1.1"
        self._body = self._body_of(said, parser)
        return True

    def _body_of(self, said: _Said, parser: httptools.HttpResponseParser) -> _Body:
        body: _Body = _UntilTheEnd()
        for name, value in said.fields:
            match name.lower():
                case b"content-length":  # the only one, and without chunks: llhttp has seen to that
                    body = _Counted(int(value))
                case b"transfer-encoding":
                    # To llhttp a tab behind it makes another one of it.
                    if value.rstrip(b" ").lower() != b"chunked" or isinstance(body, _Chunked):
                        raise httpx2.RemoteProtocolError("the answer is in a Transfer-Encoding but chunked")
                    body = _Chunked(said, parser)
                case b"connection":
                    self._keeps_alive = self._keeps_alive and not says_close(value)
        return _Counted(0) if self._to_head or self.status in (204, 304) else body

    def first(self) -> bytes:
        """What of the body came with the head."""
        data, self._unread = self._unread, b""
        return self._body.take(data) if data else b""

    def more(self, data: bytes) -> bytes:
        """What of the body stands in `data`, where nothing is the end of the connection."""
        return self._body.take(data) if data else self._body.end()

    @property
    def is_over(self) -> bool:
        """Whether all of the body was read."""
        return self._body.is_over

    def leaves_room(self) -> bool:
        """Whether another answer can follow on the same connection."""
        body = self._body
        return self._keeps_alive and body.is_over and not (body.is_last or self._unread)


class _Counted:
    """A body whose length is known."""

    is_last = False
    """Whether no other answer can follow."""

    def __init__(self, length: int) -> None:
        self._length = self._left = length
        self.is_over = not length

    def take(self, data: bytes) -> bytes:
        if len(data) > self._left:
            data = data[: self._left]
            self.is_last = True  # nobody asked for more
        self._left -= len(data)
        self.is_over = not self._left
        return data

    def end(self) -> bytes:
        came = self._length - self._left
        raise httpx2.RemoteProtocolError(
            f"the server hung up after {came} of the answer's {self._length} bytes"
        )


class _UntilTheEnd:
    """A body that ends with its connection."""

    is_last = True
    is_over = False

    def take(self, data: bytes) -> bytes:
        return data

    def end(self) -> bytes:
        self.is_over = True
        return b""


class _Chunked:
    """A body in chunks."""

    is_last = False

    def __init__(self, said: _Said, parser: httptools.HttpResponseParser) -> None:
        self._said = said
        self._parser = parser
        self._latest = b""
        self._without_content = 0

    @property
    def is_over(self) -> bool:
        return self._said.is_over

    def take(self, data: bytes) -> bytes:
        said = self._said
        try:
            _feed(self._parser, data)
        except httpx2.RemoteProtocolError:
            if not said.is_over:
                raise
            self.is_last = True  # nobody asked for that
        self._latest = (self._latest + data[-5:])[-5:]
        if said.is_over:
            self.is_last = self.is_last or said.begun > 1 or not self._ends_in_one_blank_line()
        self._without_content = 0 if said.pieces else self._without_content + len(data)
        if self._without_content > _MOST_BYTES:
            raise httpx2.RemoteProtocolError("the trailers of the answer do not end")
        content = b"".join(said.pieces)
        said.pieces.clear()
        return content

    def _ends_in_one_blank_line(self) -> bool:
        # llhttp passes over more of them.
        return self._latest.endswith(_BLANK_LINE) and not self._latest.startswith(b"\n")

    def end(self) -> bytes:
        raise httpx2.RemoteProtocolError("the server hung up in the middle of an answer in chunks")


_Body: TypeAlias = _Counted | _Chunked | _UntilTheEnd


class _Said:
    """What llhttp calls."""

    def __init__(self) -> None:
        self.reason = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self.pieces: list[bytes] = []
        self.begun = 0
        self.is_over = False

    def on_message_begin(self) -> None:
        self.begun += 1

    def on_status(self, reason: bytes) -> None:
        self.reason = reason

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value))

    def on_body(self, piece: bytes) -> None:
        if not self.is_over:
            self.pieces.append(piece)

    def on_message_complete(self) -> None:
        self.is_over = True


def _feed(parser: httptools.HttpResponseParser, data: bytes) -> None:
    handled = sys.exception()
    try:
        parser.feed_data(data)
    except httptools.HttpParserCallbackError as error:
        # Raised in `_Said` from outside, as by a Ctrl-C. While another error is handled Python has that here.
        cause = error.__context__
        raise (error if cause is None or cause is handled else cause) from None
    except httptools.HttpParserError as error:
        raise httpx2.RemoteProtocolError(f"the server does not keep to HTTP/1.1: {error}") from error
    except httptools.HttpParserUpgrade:
        raise httpx2.RemoteProtocolError("the server switched to another protocol") from None
