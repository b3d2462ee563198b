"""One request to a fixture server, and the means to answer it, in pieces where that is what is tested."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

from ._replies import HangUp, Refuse, Reply, Stall

if TYPE_CHECKING:
    from collections.abc import Sequence
    from email.message import Message

    from ._replies import Fault
    from ._server import FixtureServer

__all__ = ["Exchange", "Recorded"]

_LOOKS = 0.02
"""Seconds between looks at whether the client is still there."""


@dataclass(frozen=True)
class Recorded:
    """A request that came."""

    path: str
    headers: Message
    body: dict[str, Any]
    """Empty for a GET."""

    @property
    def prompt(self) -> Any:
        """What was asked: the content of the last message, or the prompt; None without either."""
        messages = self.body.get("messages")
        return messages[-1].get("content") if messages else self.body.get("prompt")


class Exchange(BaseHTTPRequestHandler):
    """A request (`path`, `headers`, `body`, `prompt`) and what to answer with."""

    protocol_version = "HTTP/1.1"
    server_of: FixtureServer
    body: dict[str, Any]

    @property
    def prompt(self) -> Any:
        """What was asked: the content of the last message, or the prompt; None without either."""
        return Recorded(self.path, self.headers, self.body).prompt

    def play(self, reply: str | Reply | Fault) -> None:
        """Answer as described."""
        if isinstance(reply, str):
            reply = Reply(reply)
        if isinstance(reply, Refuse):
            error = {"message": reply.message, "type": "error", "code": reply.code}
            self.json(reply.status, {"error": error}, **reply.headers)
        elif isinstance(reply, HangUp | Stall):
            if reply.after:
                self.begin()
                self._pieces(reply.after)
            if isinstance(reply, Stall):
                self.until_left()
            self.close_connection = True
        else:
            time.sleep(reply.delay)
            if self.body.get("stream"):
                self._stream(reply)
            else:
                self._whole(reply)

    def whole(self, text: str) -> None:
        """A whole reply to either route."""
        self._whole(Reply(text))

    def json(self, status: int, body: object, **headers: str) -> None:
        """A reply of JSON; `_` in the name of a header stands for `-`."""
        self.raw(status, json.dumps(body).encode(), "application/json", **headers)

    def raw(self, status: int, body: bytes, kind: str, **headers: str) -> None:
        """Any reply."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def begin(self, kind: str = "text/event-stream") -> None:
        """Begin a streamed reply."""
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def chunk(self, data: bytes) -> None:
        """Bytes of a streamed reply; none at all end it."""
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def event(self, data: dict[str, Any]) -> None:
        """An event of a streamed reply."""
        self.chunk(f"data: {json.dumps(data)}\n\n".encode())

    def piece(self, text: str | None, finish: str | None = None, choice: int = 0) -> None:
        """A piece of a streamed answer; None for one that carries only the role."""
        if "messages" in self.body:
            self.delta({"role": "assistant"} if text is None else {"content": text}, finish, choice)
        else:
            self.event({"choices": [{"index": choice, "finish_reason": finish, "text": text or ""}]})

    def delta(self, delta: dict[str, Any], finish: str | None = None, choice: int = 0) -> None:
        """A piece of a streamed chat answer, as it is."""
        self.event({"choices": [{"index": choice, "finish_reason": finish, "delta": delta}]})

    def end(self, finish: str = "stop") -> None:
        """End a streamed answer as it should."""
        self.piece("", finish)
        self.chunk(b"data: [DONE]\n\n")
        self.chunk(b"")

    def until_left(self, say: bytes = b"") -> None:
        """Keep the client waiting until it goes away; `say` is sent again and again meanwhile."""
        self.connection.settimeout(_LOOKS)
        while True:
            try:
                if not self.connection.recv(1):
                    raise ConnectionResetError
            except TimeoutError:
                if say:
                    self.chunk(say)

    def _whole(self, reply: Reply) -> None:
        choice = {"finish_reason": reply.ending, "text": reply.whole, "message": reply.message()}
        choices = [{"index": index, **choice} for index in self._choices()]
        self.json(200, {"choices": choices, "usage": reply.usage})

    def _stream(self, reply: Reply) -> None:
        self.begin()
        for choice in self._choices():
            if "messages" in self.body:
                self.piece(None, choice=choice)
                for name, text in (("reasoning_content", reply.reasoning), ("refusal", reply.refusal)):
                    if text:
                        self.delta({name: text}, choice=choice)
            self._pieces(reply.pieces, reply.between, choice)
            for call in reply.calls():
                self.delta({"tool_calls": [call]}, choice=choice)
            self.piece("", reply.ending, choice)
        self.event({"choices": [], "usage": reply.usage})
        self.chunk(b"data: [DONE]\n\n")
        self.chunk(b"")

    def _choices(self) -> range:
        return range(int(self.body.get("n") or 1))

    def _pieces(self, pieces: Sequence[str], between: float = 0.0, choice: int = 0) -> None:
        for index, piece in enumerate(pieces):
            if index:
                time.sleep(between)
            self.piece(piece, choice=choice)

    def do_GET(self) -> None:
        self.body = {}
        self._answer()

    def do_POST(self) -> None:
        raw = self.rfile.read(length := int(self.headers.get("Content-Length", 0)))
        if len(raw) < length:
            self.close_connection = True  # the client went away while it was sending
            return
        self.body = json.loads(raw)
        self._answer()

    def _answer(self) -> None:
        try:
            self.server_of.answer(self)
        except OSError:
            self.server_of.left.release()
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        pass
