"""The server goes with the Python process that started it, however that one ends, and with no other."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from jupyter_client.manager import start_new_kernel

from mlxcel import LLM, AsyncLLM, ManagedServer, MlxcelCopyError, MlxcelStateError
from support import alive, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GONE = 20.0
"""Seconds: the aim is 2, and a loaded machine gets ten times that."""

START = """
import os, sys, time
from mlxcel import LLM, ManagedServer
server = ManagedServer(sys.argv[2], binary=sys.argv[1], shutdown_grace=5.0).start()
print(server.pid, server.socket_path, flush=True)
"""

HOLDERS = {
    "nobody": "",
    "a fork": """
if (child := os.fork()) == 0:
    time.sleep(60)
    os._exit(0)
print(child, flush=True)
""",
    "a fork of a fork": """
if os.fork() == 0:
    if (child := os.fork()) == 0:
        time.sleep(60)
        os._exit(0)
    print(child, flush=True)
    os._exit(0)
os.wait()
""",
    "a fork from another thread": """
import threading
def fork():
    if (child := os.fork()) == 0:
        time.sleep(60)
        os._exit(0)
    print(child, flush=True)
thread = threading.Thread(target=fork)
thread.start()
thread.join()
""",
    "a fork that knows no hooks": """
import ctypes
if (child := ctypes.PyDLL(None).fork()) == 0:
    time.sleep(60)
    os._exit(0)
print(child, flush=True)
""",
    "a program with our descriptors": """
import subprocess
for entry in os.listdir("/dev/fd"):
    try:
        os.set_inheritable(int(entry), True)
    except OSError:
        pass
print(subprocess.Popen(["sleep", "60"], close_fds=False, stdout=subprocess.DEVNULL).pid, flush=True)
""",
    "a multiprocessing worker, forked": """
import multiprocessing
process = multiprocessing.get_context("fork").Process(target=time.sleep, args=[60])
process.start()
print(process.pid, flush=True)
""",
    "a multiprocessing worker, spawned": """
import multiprocessing
process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=[60])
process.start()
print(process.pid, flush=True)
""",
    "a multiprocessing worker of a fork server": """
import multiprocessing
process = multiprocessing.get_context("forkserver").Process(target=time.sleep, args=[60])
process.start()
print(process.pid, flush=True)
""",
}

ENDINGS = {
    "return": "",
    "sys.exit": "sys.exit(3)",
    "exception": "raise RuntimeError('boom')",
    "os._exit": "os._exit(3)",
    "exec": "os.execv('/bin/sleep', ['sleep', '1'])",
    "SIGINT": "os.kill(os.getpid(), 2); time.sleep(60)",
    "SIGTERM": "os.kill(os.getpid(), 15); time.sleep(60)",
    "SIGKILL": "os.kill(os.getpid(), 9)",
}


@pytest.fixture(autouse=True)
def short_tmpdir(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What killed owners leave (an empty folder, until a later start sweeps it up) goes with the test."""
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        yield


class Owner:
    """A Python process with a server of its own."""

    def __init__(self, code: str, binary: Path, model: str = "m") -> None:
        self._popen = subprocess.Popen(
            [sys.executable, "-c", START + code, str(binary), model],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._popen.stdout is not None
        line = self._popen.stdout.readline().split()
        assert line, self._popen.communicate()[1]
        self.server, self.socket = int(line[0]), Path(line[1])
        self.holder: int | None = None

    def read_holder(self) -> None:
        assert self._popen.stdout is not None
        line = self._popen.stdout.readline()
        assert line, self._popen.communicate()[1]
        self.holder = int(line)

    def wait(self) -> None:
        self._popen.wait(60)

    @property
    def stderr(self) -> str:
        assert self._popen.stderr is not None
        return self._popen.stderr.read()

    def close(self) -> None:
        if self._popen.poll() is None:
            self._popen.kill()
            self._popen.wait()
        for pid in (self.holder, self.server):
            if pid is not None and alive(pid):
                os.kill(pid, signal.SIGKILL)
        for pipe in (self._popen.stdout, self._popen.stderr):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def own() -> Iterator[Callable[..., Owner]]:
    owners: list[Owner] = []

    def make(code: str, binary: Path, model: str = "m") -> Owner:
        owner = Owner(code, binary, model)
        owners.append(owner)
        return owner

    yield make
    for owner in owners:
        owner.close()


@pytest.mark.parametrize("ending", ENDINGS)
def test_it_ends_with_its_owner(own: Callable[..., Owner], each_binary: Path, ending: str) -> None:
    owner = own(ENDINGS[ending], each_binary)
    owner.wait()
    eventually(lambda: not alive(owner.server), GONE)
    if ending in ("return", "sys.exit", "exception", "SIGINT"):
        assert not owner.socket.parent.exists()
        stderr = owner.stderr
        assert "ResourceWarning" not in stderr
        assert ("Traceback" in stderr) == (ending in ("exception", "SIGINT"))


@pytest.mark.parametrize("holder", HOLDERS)
def test_it_ends_while_a_child_of_the_dead_owner_lives(
    own: Callable[..., Owner], each_binary: Path, holder: str
) -> None:
    owner = own(HOLDERS[holder] + "time.sleep(60)", each_binary)
    if HOLDERS[holder]:
        owner.read_holder()
    os.kill(owner._popen.pid, signal.SIGKILL)
    owner.wait()
    eventually(lambda: not alive(owner.server), GONE)
    if owner.holder is not None and "multiprocessing" not in holder:
        assert alive(owner.holder), "the case is the one of a child that lives on"


@pytest.mark.parametrize("ending", ["SIGKILL", "os._exit"])
def test_the_real_server_ends_with_its_owner(
    own: Callable[..., Owner], real_binary: Path, ending: str
) -> None:
    owner = own(HOLDERS["a fork"] + ENDINGS[ending], real_binary, "mlxcel-tiny")
    owner.read_holder()
    owner.wait()
    eventually(lambda: not alive(owner.server), GONE)
    assert not owner.socket.parent.exists()


def test_the_real_server_ends_while_it_writes(own: Callable[..., Owner], real_binary: Path) -> None:
    code = """
llm = LLM(socket=server.socket_path, api_key=server.api_key)
stream = llm.stream("Once", max_tokens=2000, ignore_eos=True)
next(stream)
os.kill(os.getpid(), 9)
"""
    owner = own(code, real_binary, "mlxcel-tiny")
    owner.wait()
    eventually(lambda: not alive(owner.server), GONE)


def test_an_owner_that_dies_during_the_start(each_binary: Path, tmp_path: Path) -> None:
    dump = tmp_path / "facts"
    code = """
import sys, time
from mlxcel import ManagedServer
server = ManagedServer("m", binary=sys.argv[1], extra_args=["--fake-stuck", "--fake-dump", sys.argv[2]])
server.spawn()
time.sleep(60)
"""
    owner = subprocess.Popen([sys.executable, "-c", code, str(each_binary), str(dump)])
    eventually(lambda: dump.exists() and dump.read_text().endswith("}"), 30)
    owner.kill()
    owner.wait()
    pid = json.loads(dump.read_text())["pid"]
    eventually(lambda: not alive(pid), GONE)


def test_the_reaper_kills_a_server_that_ignores_sigterm_but_only_after_the_grace(
    own: Callable[..., Owner], fake_binary: Path
) -> None:
    stubborn = fake_binary.with_name("stubborn")
    stubborn.write_text(f'#!/bin/sh\nexec "{fake_binary}" "$@" --fake-ignore-sigterm\n')
    stubborn.chmod(0o755)
    began = time.monotonic()
    owner = own(ENDINGS["SIGKILL"], stubborn)
    owner.wait()
    eventually(lambda: not alive(owner.server), 60)
    assert time.monotonic() - began > 5.0, "it has a grace of 5 s"
    eventually(lambda: not owner.socket.parent.exists())


def test_a_killed_reaper_does_not_leave_the_server_behind(fake_binary: Path) -> None:
    with ManagedServer("m", binary=fake_binary, restart=None) as server:
        assert server.pid is not None
        parent = int(Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()[1])
        assert parent != os.getpid()
        os.kill(parent, signal.SIGKILL)
        eventually(lambda: server.poll() is not None, GONE)
        assert not alive(server.pid)


def test_a_sigterm_to_the_reaper_ends_the_server_gently(fake_binary: Path) -> None:
    with ManagedServer("m", binary=fake_binary, restart=None) as server:
        parent = int(Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(parent, signal.SIGTERM)
        eventually(lambda: server.poll() is not None, GONE)
        assert server.poll() == 0


KERNEL_CELL = """
from mlxcel import LLM
llm = LLM("m", binary={binary!r})
assert llm.chat("hello") == "echo: hello"
print(llm.server.pid)
"""


@pytest.mark.parametrize("how", ["kill", "restart", "shutdown"])
def test_a_notebook_kernel_takes_its_server_along(each_binary: Path, how: str) -> None:
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        said: list[str] = []

        def hear(message: dict[str, Any]) -> None:
            if message["msg_type"] in ("stream", "error"):
                said.append(message["content"].get("text") or str(message["content"]))

        cell = KERNEL_CELL.format(binary=str(each_binary))
        client.execute_interactive(cell, timeout=60, output_hook=hear)
        pid = int("".join(said))
        assert alive(pid)
        if how == "kill":
            manager.signal_kernel(signal.SIGKILL)
        elif how == "restart":
            manager.restart_kernel(now=True)
        else:
            manager.shutdown_kernel()
        eventually(lambda: not alive(pid), GONE)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()


# -- never by the wrong one --------------------------------------------------


def test_a_forked_child_leaves_it_alone(own: Callable[..., Owner], each_binary: Path) -> None:
    code = """
child = os.fork()
if child == 0:
    from mlxcel import MlxcelStateError
    assert server.state == "ready" and server.poll() is None
    for forbidden in (server.spawn, server.restart):
        try:
            forbidden()
        except MlxcelStateError as error:
            assert "fork" in str(error)
            continue
        os._exit(9)
    assert server.failure_since(server.generation) is None
    server.wait_available(1.0)
    server.stop()
    del server
    sys.exit(0)  # runs the finalizers
assert os.waitpid(child, 0)[1] == 0
assert server.poll() is None
assert os.path.exists(server.socket_path)
os.kill(server.pid, 0)
server.wait_available(1.0)
os.write(2, b"still there")
"""
    owner = own(code, each_binary)
    owner.wait()
    assert "still there" in owner.stderr
    eventually(lambda: not alive(owner.server))


WORKERS = """
import multiprocessing, os, sys
from mlxcel import LLM

def ask(where):
    socket, key = where
    with LLM(socket=socket, api_key=key) as llm:
        return str(llm.chat("hi"))

def leave():
    sys.exit(0)

if __name__ == "__main__":
    with LLM("m", binary=sys.argv[1]) as llm:
        server = llm.server
        context = multiprocessing.get_context(sys.argv[2])
        with context.Pool(2) as pool:
            assert pool.map(ask, [(server.socket_path, server.api_key)] * 4) == ["echo: hi"] * 4
        process = context.Process(target=leave)
        process.start()
        process.join()
        assert process.exitcode == 0
        assert server.state == "ready" and server.generation == 1
        assert llm.chat("hi") == "echo: hi"
    print("fine")
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_workers_leave_it_alone(each_binary: Path, tmp_path: Path, method: str) -> None:
    script = tmp_path / "workers.py"
    script.write_text(WORKERS)
    done = subprocess.run(
        [sys.executable, str(script), str(each_binary), method],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout == "fine\n", done.stderr


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_server_cannot_be_copied(duplicate: Callable[[object], object], fake_binary: Path) -> None:
    with ManagedServer("m", binary=fake_binary) as server:
        with pytest.raises(MlxcelCopyError, match=r"LLM\(socket=") as caught:
            duplicate(server)
        assert server.api_key not in str(caught.value)
        assert server.state == "ready"
    for client in (LLM(socket="/nowhere"), AsyncLLM(socket="/nowhere")):
        with pytest.raises(TypeError, match="cannot be copied"):
            duplicate(client)


def test_ctrl_c_while_it_starts_cleans_up(each_binary: Path, tmp_path: Path) -> None:
    code = """
import signal, sys, threading, os, time
from mlxcel import LLM
def interrupt():
    while not (os.path.exists(sys.argv[2]) and open(sys.argv[2]).read().endswith("}")):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
try:
    LLM("m", binary=sys.argv[1], extra_args=["--fake-stuck", "--fake-dump", sys.argv[2]])
except KeyboardInterrupt:
    print("interrupted")
"""
    dump = tmp_path / "facts"
    done = subprocess.run(
        [sys.executable, "-c", code, str(each_binary), str(dump)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "interrupted\n", done.stderr
    assert not alive(json.loads(dump.read_text())["pid"])


def test_ctrl_c_at_any_moment_of_the_start(each_binary: Path, tmp_path: Path) -> None:
    """The interruption falls where it will; nothing may stay behind in any of the places."""
    code = """
import _thread, signal, sys, threading, os, time
import mlxcel.llm, openai
pids = set()
def note(change):
    if change.pid: pids.add(change.pid)
for n in range(12):
    timer = threading.Timer(0.004 * n, _thread.interrupt_main)
    try:
        timer.start()
        server = mlxcel.ManagedServer("m", binary=sys.argv[1], on_state=note)
        with server:
            time.sleep(5)
    except KeyboardInterrupt:
        pass
    timer.join()
print(*pids)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(each_binary)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    eventually(lambda: not [pid for pid in done.stdout.split() if alive(int(pid))], GONE)


def test_a_process_that_blocks_sigterm_has_a_server_that_hears_it(each_binary: Path) -> None:
    code = """
import signal, sys
from mlxcel import ManagedServer
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
with ManagedServer("m", binary=sys.argv[1], shutdown_grace=30.0) as server:
    pass
print(*server.shutdown_steps)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(each_binary)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "SIGTERM exited\n", done.stderr


def test_an_interpreter_that_cannot_watch_is_told(fake_binary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlxcel import MlxcelServerError

    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(MlxcelServerError, match="use a current mlxcel binary"):
        ManagedServer("m", binary=fake_binary).start()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(MlxcelServerError, match="which watches over it, ended with code 1"):
        ManagedServer("m", binary=fake_binary).start()


def test_a_use_after_the_end(fake_binary: Path) -> None:
    server = ManagedServer("m", binary=fake_binary)
    with pytest.raises(MlxcelStateError, match="not started"):
        server.wait_available(1.0)
    with server:
        pass
    with pytest.raises(MlxcelStateError, match="stopped"):
        server.wait_available(1.0)
    with contextlib.suppress(MlxcelStateError):
        server.wait_ready()
