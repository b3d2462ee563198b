"""A request as HTTP/1.1 writes it. No I/O."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import httpx2

__all__ = ["OutgoingRequest"]

_Fields: TypeAlias = tuple[tuple[bytes, bytes], ...]

_TOKEN = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
_TARGET = re.compile(rb"[\x21-\x7e]+")
_NO_VALUE = re.compile(rb"[\x00\n\v\f\r]|\A[ \t]|[ \t]\Z")
_LENGTH = re.compile(rb"[0-9]{1,20}")


class OutgoingRequest:
    """The bytes of a request, held to what its head says of its body."""

    def __init__(self, request: httpx2.Request) -> None:
        # Short prompts differ in their length alone: all else is checked once.
        steady, lengths = [], set()
        for field in request.headers.raw:
            if field[0].lower() == b"content-length":
                lengths.add(field[1])
            else:
                steady.append(field)
        checked = _checked_head(request.method, request.url.raw_path, tuple(steady))
        self.keeps_alive = checked.keeps_alive
        self.head = checked.head + b"\r\n"
        self._left: int | None = None if checked.is_chunked else 0
        """Bytes of the body to come; None when it goes in chunks."""
        if lengths:
            if checked.is_chunked:
                raise httpx2.LocalProtocolError("a request has Content-Length and Transfer-Encoding")
            self._left = _length(lengths)
            self.head = b"%bContent-Length: %d\r\n\r\n" % (checked.head, self._left)

    def part(self, data: bytes) -> bytes:
        """What is to be written for a part of the body."""
        if self._left is None:
            return b"%x\r\n%b\r\n" % (len(data), data) if data else b""  # an empty chunk would be the end
        self._left -= len(data)
        if self._left < 0:
            raise httpx2.LocalProtocolError("the body of a request is longer than its Content-Length")
        return data

    def end(self) -> bytes:
        """What is to be written after all parts."""
        if self._left is None:
            return b"0\r\n\r\n"
        if self._left:
            raise httpx2.LocalProtocolError("the body of a request is shorter than its Content-Length")
        return b""


class _CheckedHead(NamedTuple):
    head: bytes
    """Its lines but for the length and the empty one."""
    is_chunked: bool
    keeps_alive: bool


@lru_cache(maxsize=64)
def _checked_head(method: str, target: bytes, fields: _Fields) -> _CheckedHead:
    """Nothing in it can be taken for another line."""
    verb = method.encode()
    if not _TOKEN.fullmatch(verb):
        raise httpx2.LocalProtocolError(f"{method!r} is no method of HTTP")
    if not _TARGET.fullmatch(target):
        raise httpx2.LocalProtocolError(f"{target!r} cannot be asked for")
    for name, value in fields:
        if not _TOKEN.fullmatch(name):
            raise httpx2.LocalProtocolError(f"{name!r} is no name of a header")
        if _NO_VALUE.search(value):  # is not shown: it may be a key
            raise httpx2.LocalProtocolError(f"the value of the header {name.decode()} cannot be sent")
    hosts = [field for field in fields if field[0].lower() == b"host"]
    if len(hosts) != 1:
        raise httpx2.LocalProtocolError(f"a request has {len(hosts)} headers Host instead of one")
    codings = [value.lower() for name, value in fields if name.lower() == b"transfer-encoding"]
    if codings not in ([], [b"chunked"]):
        raise httpx2.LocalProtocolError("a request can be sent in no Transfer-Encoding but chunked")
    lines = [b"%b %b HTTP/1.1\r\n" % (verb, target)]
    lines += [b"%b: %b\r\n" % field for field in (*hosts, *(field for field in fields if field not in hosts))]
    options = b",".join(value for name, value in fields if name.lower() == b"connection")
    return _CheckedHead(b"".join(lines), bool(codings), not says_close(options))


def says_close(connection: bytes) -> bool:
    """Whether a header Connection announces that its sender will hang up."""
    return b"close" in [option.strip() for option in connection.lower().split(b",")]


def _length(values: set[bytes]) -> int:
    value = values.pop()
    if values or not _LENGTH.fullmatch(value):
        raise httpx2.LocalProtocolError("the Content-Length of a request is none")
    return int(value)
