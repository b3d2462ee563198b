"""A server in this process that does what a test says, on one TCP port; for `LLM(base_url=…)`."""

from __future__ import annotations

import json
import socket
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from email.message import Message

USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}


@dataclass(frozen=True)
class Seen:
    """A request that came."""

    path: str
    headers: Message
    body: dict[str, Any]


class Exchange(BaseHTTPRequestHandler):
    """One request, and the means to answer it in pieces."""

    protocol_version = "HTTP/1.1"
    script: Scripted
    body: dict[str, Any]

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        pass

    def do_GET(self) -> None:
        self.body = {}
        if self.path == "/v1/models" and self.script.models is not None:
            self.json(200, {"data": [{"id": name} for name in self.script.models]})
        else:
            self._play()

    def do_POST(self) -> None:
        raw = self.rfile.read(length := int(self.headers.get("Content-Length", 0)))
        if len(raw) < length:
            self.close_connection = True  # the client went away while it was sending
            return
        self.body = json.loads(raw)
        self._play()

    def _play(self) -> None:
        self.script.requests.append(Seen(self.path, self.headers, self.body))
        try:
            self.script.answer(self)
        except OSError:
            self.script.left.release()
            self.close_connection = True

    def json(self, status: int, body: object, **headers: str) -> None:
        self.raw(status, json.dumps(body).encode(), "application/json", **headers)

    def raw(self, status: int, body: bytes, kind: str, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def whole(self, text: str) -> None:
        """A whole reply to either route."""
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "finish_reason": "stop", "text": text, "message": message}
        self.json(200, {"choices": [choice], "usage": USAGE})

    def begin(self, kind: str = "text/event-stream") -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def piece(self, text: str | None, finish: str | None = None) -> None:
        """A piece of a streamed answer; None for one that carries only the role."""
        if "messages" in self.body:
            content: dict[str, Any] = {"delta": {"role": "assistant"} if text is None else {"content": text}}
        else:
            content = {"text": text or ""}
        choice = {"index": 0, "finish_reason": finish, **content}
        self.chunk(f"data: {json.dumps({'choices': [choice]})}\n\n".encode())

    def delta(self, delta: dict[str, Any], finish: str | None = None) -> None:
        """A piece of a streamed chat answer, as it is."""
        choice = {"index": 0, "finish_reason": finish, "delta": delta}
        self.chunk(f"data: {json.dumps({'choices': [choice]})}\n\n".encode())

    def end(self) -> None:
        self.piece("", "stop")
        self.chunk(b"data: [DONE]\n\n")
        self.chunk(b"")

    def until_left(self, say: bytes = b"") -> None:
        """Keep the client waiting until it goes away; `say` is sent again and again meanwhile."""
        self.connection.settimeout(0.02)
        while True:
            try:
                if not self.connection.recv(1):
                    raise ConnectionResetError
            except TimeoutError:
                if say:
                    self.chunk(say)


class Scripted:
    """`answer` gets each request but those for the models, which are `models` unless None."""

    def __init__(
        self, answer: Callable[[Exchange], None], *, models: tuple[str, ...] | None = ("m",)
    ) -> None:
        self.answer = answer
        self.models = models
        self.requests: list[Seen] = []
        self.left = threading.Semaphore(0)
        handler = type("Handler", (Exchange,), {"script": self})

        class Server(ThreadingHTTPServer):
            request_queue_size = 128
            daemon_threads = True

        self._server = Server(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def deaf_address() -> tuple[str, list[socket.socket]]:
    """An address where connecting never succeeds: its queue of connections is full. Keep the sockets."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    waiting = []
    for _ in range(4):
        probe = socket.socket()
        probe.setblocking(False)
        probe.connect_ex(listener.getsockname())
        waiting.append(probe)
    return f"http://127.0.0.1:{listener.getsockname()[1]}/v1", [listener, *waiting]
