"""Whoever goes away frees what was done for them, and whoever does not read holds nobody up.

The clients here are bare sockets, so that when they hang up is the test's to say.
"""

from __future__ import annotations

import json
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from mlxcel import ManagedServer
from support import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.e2e

# What the issue allows is 0.2 s.
SOON = 2.0

# The tokens that would end an answer are ruled out, so it runs to the end of the context.
ENDLESS = {"prompt": "mlxcel is", "temperature": 1, "logit_bias": {"2040": -100, "2041": -100}}


class Plain:
    """A server without a client library: bare connections, and a look at its slots."""

    def __init__(self, server: ManagedServer, *, tcp: bool) -> None:
        self._server = server
        self._tcp = tcp
        transport = None if tcp else httpx2.HTTPTransport(uds=server.socket_path)
        self._root = server.base_url.removesuffix("/v1") if tcp else "http://localhost"
        headers = {"Authorization": f"Bearer {server.api_key}"}
        self.http = httpx2.Client(
            transport=transport, base_url=self._root, headers=headers, timeout=60, trust_env=False
        )

    def connect(self) -> socket.socket:
        """A connection that takes in little unless it is read."""
        connection = socket.socket(socket.AF_INET if self._tcp else socket.AF_UNIX)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        if self._tcp:
            host, port = self._root.removeprefix("http://").split(":")
            connection.connect((host, int(port)))
        else:
            connection.connect(str(self._server.socket_path))
        return connection

    def post(self, body: dict[str, Any], path: str = "/v1/completions") -> socket.socket:
        """A connection with a request sent, and nothing read."""
        content = json.dumps(body)
        connection = self.connect()
        connection.sendall(
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {self._server.api_key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n{content}".encode()
        )
        return connection

    def running(self) -> int:
        return int(self._prop("busy_slots"))

    def waiting(self) -> int:
        return int(self._prop("queued_requests"))

    def idle(self) -> bool:
        return self.running() == 0 and self.waiting() == 0

    def _prop(self, name: str) -> Any:
        return self.http.get("/props").json()[name]


@contextmanager
def serving(binary: Path, *, n_parallel: int, tcp: bool = False) -> Iterator[Plain]:
    host = "127.0.0.1" if tcp else None
    with ManagedServer("mlxcel-tiny", binary=binary, n_parallel=n_parallel, host=host) as server:
        plain = Plain(server, tcp=tcp)
        with plain.http:
            yield plain


@pytest.fixture(scope="module", params=[False, True], ids=["uds", "tcp"])
def server(real_binary: Path, request: pytest.FixtureRequest) -> Iterator[Plain]:
    with serving(real_binary, n_parallel=2, tcp=request.param) as plain:
        yield plain


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_hanging_up_frees_every_slot(server: Plain, stream: bool, n: int) -> None:
    """With five outputs and two slots some of them are still in the queue."""
    connection = server.post(ENDLESS | {"stream": stream, "n": n})
    eventually(lambda: (server.running(), server.waiting()) == (min(n, 2), max(n - 2, 0)))
    connection.close()
    eventually(server.idle, SOON)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_a_conversation_is_cancelled_alike(server: Plain, stream: bool) -> None:
    messages = [{"role": "user", "content": "Tell me a story."}]
    body = ENDLESS | {"messages": messages, "stream": stream, "n": 3}
    del body["prompt"]
    connection = server.post(body, "/v1/chat/completions")
    eventually(lambda: server.running() == 2)
    connection.close()
    eventually(server.idle, SOON)


def test_a_client_that_has_sent_more_than_one_request_is_seen_to_go(server: Plain) -> None:
    """What it has sent already lies unread before the end of the connection."""
    connection = server.post(ENDLESS)
    connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    eventually(lambda: server.running() == 1)
    connection.close()
    eventually(server.idle, SOON)


def test_a_request_in_the_queue_leaves_it_when_its_client_goes(server: Plain) -> None:
    running = server.post(ENDLESS | {"n": 2})
    eventually(lambda: server.running() == 2)
    queued = [server.post(ENDLESS | {"stream": stream}) for stream in (True, False)]
    eventually(lambda: server.waiting() == 2)
    for connection in queued:
        connection.close()
    eventually(lambda: server.waiting() == 0, SOON)
    assert server.running() == 2
    running.close()
    eventually(server.idle, SOON)


def test_who_does_not_read_a_stream_holds_nobody_up(server: Plain) -> None:
    """With logprobs the stream is more than the sockets' buffers hold."""
    body = ENDLESS | {"stream": True, "max_tokens": 800, "logprobs": 20}
    unread = server.post(body)
    eventually(lambda: server.running() == 1)
    answer = server.http.post("/v1/completions", json={"prompt": "mlxcel is", "max_tokens": 8})
    assert answer.status_code == 200
    eventually(server.idle, 60)
    # All that was generated is still there for the one who reads it late.
    received = b""
    unread.settimeout(30)
    while not received.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n"):
        chunk = unread.recv(1 << 16)
        assert chunk, received[-200:]
        received += chunk
    assert len(received) > 1 << 18
    assert received.count(b"data: ") == 802
    unread.close()


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions", "/tokenize"])
def test_large_texts_are_prepared_beside_the_rest(server: Plain, path: str) -> None:
    """More of them at once than the machine has processors; health, props and short requests go on."""
    text = "All work and no play makes a dull text. " * 25_000
    fields: dict[str, dict[str, Any]] = {
        "/v1/completions": {"prompt": text},
        "/v1/chat/completions": {"messages": [{"role": "user", "content": text}]},
        "/tokenize": {"content": text},
    }
    statuses: list[int] = []
    threads = [
        threading.Thread(
            target=lambda: statuses.append(server.http.post(path, json=fields[path]).status_code), daemon=True
        )
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    looks = 0
    while any(thread.is_alive() for thread in threads):
        assert server.http.get("/health", timeout=SOON).status_code == 200
        short = {"prompt": "mlxcel is", "max_tokens": 1}
        assert server.http.post("/v1/completions", json=short, timeout=10).status_code == 200
        looks += 1
    assert looks > 5
    # The context does not hold so much; tokens alone are counted for anybody.
    assert set(statuses) == {200 if path == "/tokenize" else 400}


def test_a_client_that_goes_while_its_text_is_prepared_takes_no_slot(server: Plain) -> None:
    text = "All work and no play makes a dull text. " * 25_000
    connections = [server.post({"prompt": text}) for _ in range(4)]
    for connection in connections:
        connection.close()
    for _ in range(20):
        assert server.idle()
    assert server.http.get("/health", timeout=SOON).status_code == 200
