"""An HTTP server that answers a chat completion at once: what is left is the client's own time.

    python bench/instant_server.py SOCKET

It runs as a process of its own, so that its time is not counted as the client's.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MODEL = "instant"
REPLY = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": MODEL,
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
}
MODELS = {"object": "list", "data": [{"id": MODEL, "object": "model", "created": 1, "owned_by": "bench"}]}


def response(body: object) -> bytes:
    raw = json.dumps(body).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (
        len(raw),
        raw,
    )


ANSWERS = {b"/v1/models": response(MODELS)}
ANSWER = response(REPLY)


class Instant(asyncio.Protocol):
    """One connection; a request is complete when its head and its declared body are there."""

    def __init__(self) -> None:
        self.data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data
        while (end := self.data.find(b"\r\n\r\n")) >= 0:
            head = self.data[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.data) < end + 4 + length:
                return
            path = self.data.split(b" ", 2)[1]
            self.data = self.data[end + 4 + length :]
            assert isinstance(self.transport, asyncio.Transport)
            self.transport.write(ANSWERS.get(path, ANSWER))


@contextlib.contextmanager
def running() -> Iterator[str]:
    """The socket path of a server in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s.sock"
        process = subprocess.Popen([sys.executable, __file__, str(path)])
        try:
            while not path.exists():
                if process.poll() is not None:
                    raise SystemExit(f"the instant server ended with {process.returncode}")
                time.sleep(0.01)
            yield str(path)
        finally:
            process.terminate()
            process.wait()


async def serve(path: str) -> None:
    server = await asyncio.get_running_loop().create_unix_server(Instant, path, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(sys.argv[1]))
