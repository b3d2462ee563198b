"""How a start is followed and shown, and what can be asked of a server that runs."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import start_new_kernel

from mlxcel import (
    LLM,
    ManagedServer,
    Memory,
    MlxcelServerError,
    MlxcelStateError,
    MlxcelTimeoutError,
    Throughput,
)
from support import eventually


def test_a_silent_server_that_works_is_not_given_up(fake_binary: Path) -> None:
    """An older one says nothing until it is ready; its work is seen from outside."""
    flags = ["--fake-old", "--fake-busy", "--fake-load-seconds", "4"]
    began = time.monotonic()
    with ManagedServer("m", binary=fake_binary, extra_args=flags, startup_timeout=1.5):
        assert time.monotonic() - began > 3.5


def test_a_silent_server_that_idles_is_given_up(fake_binary: Path) -> None:
    flags = ["--fake-old", "--fake-load-seconds", "60"]
    with pytest.raises(MlxcelTimeoutError, match="nothing answered"):
        ManagedServer("m", binary=fake_binary, extra_args=flags, startup_timeout=1.0).start()


def test_a_stranger_is_not_asked_while_our_server_has_not_announced_itself(lifeline_binary: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        server = ManagedServer(
            "m", binary=lifeline_binary, port=port, extra_args=["--fake-silent"], startup_timeout=0.5
        )
        with pytest.raises(MlxcelTimeoutError):
            server.start()
        assert not select.select([stranger], [], [], 0)[0], "the stranger was asked"


def test_a_stranger_does_not_get_the_key(fake_binary: Path) -> None:
    """On a port that an older server may not have got, another key goes first."""
    heard: list[bytes] = []

    def answer() -> None:
        while True:
            connection, _ = stranger.accept()
            with connection:
                request = connection.recv(65536)
                if not request:
                    return
                heard.append(request)
                body = b'{"status": "ok", "data": []}'
                head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
                connection.sendall(head + body)

    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        thread = threading.Thread(target=answer)
        thread.start()
        server = ManagedServer(
            "m", binary=fake_binary, port=port, extra_args=["--fake-silent"], api_key="mine"
        )
        try:
            with pytest.raises(MlxcelServerError, match="takes any key"):
                server.start()
        finally:
            socket.create_connection(("127.0.0.1", port)).close()
            thread.join(10)
    models = [request for request in heard if b"/v1/models" in request]
    assert models
    assert not [request for request in models if b"Bearer mine" in request]


def test_proxies_do_not_touch_local_traffic(fake_binary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with LLM("m", binary=fake_binary, host="127.0.0.1") as llm:
        assert llm.chat("hello") == "echo: hello"


def test_what_the_child_inherits(each_binary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLXCEL_LIFELINE", "99:1")  # that of a server that started this Python
    dump = tmp_path / "facts"
    with Path(os.devnull).open("rb") as leak:
        os.set_inheritable(leak.fileno(), True)
        with ManagedServer("m", binary=each_binary, extra_args=["--fake-dump", str(dump)]) as server:
            facts: dict[str, Any] = json.loads(dump.read_text())
            assert facts["pid"] == server.pid == facts["session"]
    lifeline = facts["environment"].get("MLXCEL_LIFELINE")
    allowed = {0, 1, 2}
    if lifeline is not None:
        descriptor, owner = lifeline.split(":")
        assert int(owner) == os.getpid()
        allowed.add(int(descriptor))
    assert len(set(facts["descriptors"]) - allowed) <= 1, "only that of the listing"
    assert facts["stdin_is_null"]


def test_what_can_be_asked_of_a_server(lifeline_binary: Path) -> None:
    server = ManagedServer("m", binary=lifeline_binary, extra_args=["--fake-print-key"])
    assert server.uptime is None
    with pytest.raises(MlxcelStateError, match="not started"):
        _ = server.memory
    with server:
        assert server.uptime is not None
        assert 0 < server.uptime < 60
        assert server.memory == Memory(rss_bytes=4, active_bytes=3, peak_bytes=2, cache_bytes=1)
        assert server.throughput == Throughput(7, 5, 1.5, 0.5)
        eventually(lambda: "my key is ***!" in server.log_tail)
        assert '"event": "listening"' in server.log_tail
        server.restart()
        eventually(lambda: server.log_tail.count("my key is") == 2)
    assert server.uptime is None
    assert server.shutdown_steps == ("SIGTERM", "exited")


def test_an_older_server_tells_less(fake_binary: Path) -> None:
    with ManagedServer("m", binary=fake_binary) as server:
        assert server.memory is None
        assert server.throughput is None


def test_the_real_server_tells_what_it_holds(real_binary: Path) -> None:
    with LLM("mlxcel-tiny", binary=real_binary) as llm:
        server = llm.server
        assert isinstance(server, ManagedServer)
        llm.generate("Once", max_tokens=4)
        assert server.memory is not None
        assert server.memory.rss_bytes > server.memory.active_bytes > 0
        assert server.throughput is not None
        assert server.throughput.generated_tokens_total >= 4


@pytest.mark.parametrize("kind", ["lifeline_binary", "fake_binary"])
def test_cycles_leave_nothing(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Files of records included; the bench does two hundred of them."""
    binary: Path = request.getfixturevalue(kind)
    descriptors = Path("/dev/fd")

    def cycle() -> None:
        with ManagedServer("m", binary=binary) as server:
            paths.append(Path(str(server.socket_path)).parent)

    paths: list[Path] = []
    cycle()
    open_before, threads_before = len(list(descriptors.iterdir())), threading.active_count()
    for _ in range(5):
        cycle()
    assert len(list(descriptors.iterdir())) <= open_before
    assert threading.active_count() <= threads_before
    assert not [path for path in paths if path.exists()]


BAR = """
import sys
from mlxcel import ManagedServer
options = eval(sys.argv[2])
flags = ["--fake-load-seconds", "2", *options.pop("flags", [])]
with ManagedServer("m", binary=sys.argv[1], extra_args=flags, **options):
    pass
import threading
assert threading.active_count() == len([t for t in threading.enumerate() if "tqdm" not in repr(t)])
"""


def stderr_in_a_terminal(binary: Path, options: dict[str, Any]) -> str:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-c", BAR, str(binary), repr(options)], stderr=theirs, stdin=subprocess.DEVNULL
    )
    os.close(theirs)
    said = b""
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        while True:
            try:
                chunk = terminal.read(4096)
            except OSError:  # Linux's way to say that the other side is closed
                break
            if not chunk:
                break
            said += chunk
    assert process.wait(60) == 0, said
    return said.decode()


def test_a_bar_in_a_terminal(fake_binary: Path) -> None:
    said = stderr_in_a_terminal(fake_binary, {"flags": ["--fake-bytes", "2147483648"]})
    assert "m: weights" in said
    assert re.search(r"\d(\.\d+)?[MG]/2\.00G", said), said
    assert re.search(r"\[00:0\d<", said), "seconds"


def test_a_bar_without_bytes(fake_binary: Path) -> None:
    assert re.search(r"m: weights: +\d+%\|", stderr_in_a_terminal(fake_binary, {}))


def test_no_bar_when_it_is_off(fake_binary: Path) -> None:
    assert stderr_in_a_terminal(fake_binary, {"progress": False}) == ""


def test_no_bar_when_piped_unless_asked_for(fake_binary: Path) -> None:
    for options, expected in (({}, False), ({"progress": True}, True)):
        done = subprocess.run(
            [sys.executable, "-c", BAR, str(fake_binary), repr(options)],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert ("m: weights" in done.stderr) == expected, done.stderr
        assert done.stdout == ""


def test_a_bar_in_a_notebook(fake_binary: Path) -> None:
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        shown: list[str] = []
        code = BAR.replace("sys.argv[2]", "'{}'").replace("sys.argv[1]", repr(str(fake_binary)))
        client.execute_interactive(
            code, timeout=60, output_hook=lambda m: shown.append(json.dumps(m["content"]))
        )
        assert "m: weights" in "".join(shown)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()


def test_a_process_without_standard_streams(each_binary: Path, tmp_path: Path) -> None:
    """Their numbers go to what is opened next: here to what the server is to inherit."""
    code = """
import os, sys
for descriptor in range(3):
    os.close(descriptor)
from mlxcel import LLM
with LLM("m", binary=sys.argv[1]) as llm, open(sys.argv[2], "w") as said:
    said.write(llm.chat("What is 12 + 30?"))
"""
    said = tmp_path / "said"
    subprocess.run([sys.executable, "-c", code, str(each_binary), str(said)], timeout=60, check=True)
    assert said.read_text() == "echo: What is 12 + 30?"
