"""The server process: started as promised, watched while it starts, always ended."""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mlxcel import ManagedServer, MlxcelServerError, MlxcelStateError, MlxcelTimeoutError
from support import alive, eventually

Make = Callable[..., ManagedServer]


@pytest.fixture
def make(fake_binary: Path) -> Iterator[Make]:
    """Servers on the fake binary; whatever a test forgets is stopped."""
    made: list[ManagedServer] = []

    def build(*flags: str, **options: Any) -> ManagedServer:
        options.setdefault("startup_timeout", 20.0)
        server = ManagedServer("models/tiny", binary=fake_binary, extra_args=flags, **options)
        made.append(server)
        return server

    yield build
    for server in made:
        server.stop()


def facts_of(path: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(path.read_text())
    return facts


def test_start_and_stop(make: Make) -> None:
    server = make()
    assert (server.pid, server.poll(), server.socket_path) == (None, None, None)
    with pytest.raises(MlxcelStateError, match="start"):
        _ = server.base_url
    with server:
        pid, path = server.pid, server.socket_path
        assert pid is not None
        assert path is not None
        assert alive(pid)
        assert server.poll() is None
        assert server.served_models == ("tiny",)
        assert server.base_url == "http://localhost/v1"
        folder = Path(path).parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert server.start() is server
        assert server.pid == pid, "a running server is left as it is"
    assert not alive(pid)
    assert server.poll() == 0
    assert not folder.exists()
    server.stop()


def test_how_the_child_is_started(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_ARG_CTX_SIZE", "1")
    monkeypatch.setenv("LLAMA_API_KEY", "from outside")
    leak = os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(leak, True)
    dump = tmp_path / "facts"
    try:
        with make("--fake-dump", str(dump), ctx_size=4096, alias="name", warmup=True) as server:
            facts = facts_of(dump)
            key = server.api_key
            expected = [
                "serve",
                "-m",
                "models/tiny",
                "-a",
                "name",
                "--host",
                server.socket_path,
                "--port",
                "0",
            ]
    finally:
        os.close(leak)
    expected += ["--ctx-size", "4096", "--warmup", "--fake-dump", str(dump)]
    assert facts["argv"][1:] == expected
    assert not [name for name in facts["environment"] if name.startswith("LLAMA_ARG_")]
    assert facts["environment"]["LLAMA_API_KEY"] == key
    assert key not in str(facts["argv"])
    assert facts["session"] == facts["pid"] != os.getsid(0), "a session of its own"
    assert facts["stdin_is_null"]
    assert len([number for number in facts["descriptors"] if number > 2]) <= 1, "only the listing's own"


def test_keys(make: Make) -> None:
    assert make().api_key != make().api_key
    assert len(make().api_key) >= 32
    with make(api_key="chosen") as server:
        assert server.api_key == "chosen"
        assert "chosen" not in repr(server)


def test_an_early_exit_is_noticed_at_once(make: Make) -> None:
    server = make("--fake-exit", "3", startup_timeout=60.0)
    began = time.monotonic()
    with pytest.raises(MlxcelServerError, match=r"exited with code 3 while it started:\nloading") as caught:
        server.start()
    assert time.monotonic() - began < 45
    assert caught.value.exit_code == 3
    assert caught.value.stderr_tail.endswith("error: the model has no tensor lm_head.weight")
    assert not Path(str(server.socket_path)).parent.exists()


def test_an_exit_while_loading_is_noticed(make: Make) -> None:
    with pytest.raises(MlxcelServerError, match="lm_head") as caught:
        make("--fake-stuck", "--fake-exit-loading", "1", startup_timeout=60.0).start()
    assert caught.value.exit_code == 1


def test_a_signal_is_named(make: Make) -> None:
    with pytest.raises(MlxcelServerError, match="was ended by SIGSEGV") as caught:
        make("--fake-die-by", str(int(signal.SIGSEGV))).start()
    assert caught.value.exit_code == -signal.SIGSEGV


@pytest.mark.parametrize(
    ("flag", "says"),
    [("--fake-silent", "nothing answered at unix:"), ("--fake-stuck", "stayed in stage 'weights' at 25%")],
)
def test_no_progress_is_a_timeout(make: Make, flag: str, says: str) -> None:
    server = make(flag, startup_timeout=3.0)
    with pytest.raises(MlxcelTimeoutError, match=says):
        server.start()
    assert isinstance(server.pid, int)
    assert not alive(server.pid)


def test_progress_resets_the_clock(make: Make) -> None:
    began = time.monotonic()
    with make("--fake-load-seconds", "6", startup_timeout=3.0):
        assert time.monotonic() - began > 5.5


def test_a_server_that_ignores_sigterm_is_killed_after_the_grace(make: Make) -> None:
    server = make("--fake-ignore-sigterm", shutdown_grace=0.5).start()
    began = time.monotonic()
    server.stop()
    assert time.monotonic() - began >= 0.5
    assert server.shutdown_steps == ("SIGTERM", "SIGKILL", "exited")
    assert server.poll() == -signal.SIGKILL


def test_a_server_that_obeys_is_never_killed(make: Make) -> None:
    server = make().start()
    server.stop()
    assert server.shutdown_steps == ("SIGTERM", "exited")


def test_a_flood_of_output_stops_nothing(make: Make) -> None:
    with make("--fake-flood", "20000000") as server:
        assert 0 < len(server.stderr_tail) <= 200 * 8192
        assert server.stderr_tail.splitlines()[-1] == "e" * 99


def test_output_reaches_the_logger_without_the_key(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="mlxcel.server")
    with make("--fake-print-key") as server:
        eventually(lambda: "my key is" in server.stderr_tail)
        assert "my key is ***!" in server.stderr_tail
        key = server.api_key
    assert "my key is ***!" in caplog.messages
    assert any('"event": "listening"' in message for message in caplog.messages)
    assert key not in caplog.text


def test_an_older_binary_over_a_socket(make: Make) -> None:
    with make("--fake-old", "--fake-load-seconds", "0.5") as server:
        assert server.served_models == ("tiny",)


def test_tcp(make: Make) -> None:
    with make(host="127.0.0.1") as server:
        assert server.socket_path is None
        assert server.base_url.startswith("http://127.0.0.1:")
        port = int(server.base_url.removesuffix("/v1").rpartition(":")[2])
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_tcp_with_an_older_binary(make: Make) -> None:
    with make("--fake-old", "--fake-load-seconds", "0.3", port=0) as server:
        assert server.served_models == ("tiny",)


@pytest.mark.parametrize(
    "says",
    [
        "127.0.0.1:8080 is already in use; choose another with --port",  # ours
        "Address already in use (os error 98)",
        "bind: address in use",
    ],
)
def test_a_port_taken_in_between_is_picked_again(make: Make, tmp_path: Path, says: str) -> None:
    marker = tmp_path / "taken-once"
    with make("--fake-port-taken", str(marker), "--fake-port-error", says, port=0) as server:
        assert server.served_models == ("tiny",)
    assert marker.exists()


def test_a_chosen_port_that_is_taken_is_an_error(make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(MlxcelServerError, match="in use"):
            make(port=port, startup_timeout=10.0).start()


@pytest.mark.parametrize(("flag", "says"), [("--fake-any-key", "takes any key"), ("--fake-other-key", "401")])
def test_a_stranger_on_the_port_is_found_out(make: Make, flag: str, says: str) -> None:
    server = make("--fake-old", flag, port=0)
    with pytest.raises(MlxcelServerError, match=f"not the server that was started.*{says}") as caught:
        server.start()
    assert server.api_key not in str(caught.value)


def test_a_chosen_socket_path(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with make(socket_path=path) as server:
        assert server.socket_path == str(path)
        with pytest.raises(MlxcelServerError, match="another server answers at"):
            make(socket_path=path).start()
        assert path.exists()
    assert not path.exists()
    assert tmp_path.exists()


def test_a_file_that_is_not_our_socket_is_not_deleted(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with make(socket_path=path):
        path.unlink()
        path.write_text("somebody else's")
    assert path.read_text() == "somebody else's"


def test_start_again_after_stop_and_after_death(make: Make) -> None:
    server = make()
    first = server.start().pid
    server.stop()
    second = server.start().pid
    assert first != second
    assert second is not None
    path = server.socket_path
    os.kill(second, signal.SIGKILL)
    eventually(lambda: server.poll() is not None)
    third = server.start().pid
    assert third is not None
    assert alive(third)
    assert server.socket_path == path


def test_stop_while_it_starts(make: Make) -> None:
    server = make("--fake-stuck", startup_timeout=60.0)
    server.spawn()
    stopper = threading.Timer(0.3, server.stop)
    stopper.start()
    with pytest.raises(MlxcelServerError):
        server.wait_ready()
    stopper.join()
    assert server.pid is not None
    assert not alive(server.pid)


def test_a_forgotten_server_ends_when_it_is_collected(make: Make, fake_binary: Path) -> None:
    server = ManagedServer("m", binary=fake_binary).start()
    pid, path = server.pid, server.socket_path
    assert pid is not None
    del server
    gc.collect()
    assert not alive(pid)
    assert not Path(str(path)).parent.exists()


def test_ten_at_once(make: Make) -> None:
    servers = [make() for _ in range(10)]
    with ThreadPoolExecutor(10) as pool:
        pids = {server.pid for server in pool.map(ManagedServer.start, servers)}
        assert len(pids) == 10
        list(pool.map(ManagedServer.stop, servers))
    assert not [pid for pid in pids if pid is not None and alive(pid)]


def test_nothing_is_left_behind(make: Make) -> None:
    descriptors = Path("/dev/fd")
    make().start().stop()
    before = len(list(descriptors.iterdir()))
    for _ in range(3):
        make().start().stop()
    assert len(list(descriptors.iterdir())) <= before, "what others left may have gone meanwhile"


def test_records_that_killed_owners_left_are_swept_up(make: Make, runtime: Path) -> None:
    left = runtime / "mlxcel" / "servers" / "999999999.json"
    with make() as server:
        (kept,) = left.parent.iterdir()
        left.write_text(kept.read_text().replace(f'"pid": {server.pid}', '"pid": 999999999'))
    assert list(left.parent.iterdir()) == []


@pytest.mark.parametrize("name", ["mlxcel-supervisor", "-out", "-exit"])
def test_without_threads_nothing_is_started_and_it_is_said(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.endswith(name):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    dump = tmp_path / "facts"
    server = make("--fake-dump", str(dump))
    with pytest.raises(MlxcelServerError, match=r"can't start new thread.*ulimit -u"):
        server.start()
    if dump.exists():
        eventually(lambda: not alive(facts_of(dump)["pid"]))
    monkeypatch.undo()
    with server:
        assert server.state == "ready"
