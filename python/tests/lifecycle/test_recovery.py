"""A server that dies is started again: at the same address, not for ever, and with word of it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mlxcel import (
    LLM,
    AsyncLLM,
    ManagedServer,
    MlxcelConfigError,
    MlxcelServerCrashedError,
    MlxcelServerError,
    MlxcelStateError,
    MlxcelTimeoutError,
    Restart,
    ServerState,
    StateChange,
)
from support import alive, eventually

if TYPE_CHECKING:
    from collections.abc import Callable

QUICK = Restart(limit=3, window=60.0, stable=30.0, backoff=0.05, max_backoff=0.2)


def kill(server: ManagedServer, number: int = signal.SIGKILL) -> int:
    """End the process behind its back; its generation."""
    generation = server.generation
    assert server.pid is not None
    os.kill(server.pid, number)
    return generation


class History(list[StateChange]):
    """An `on_state` callback that remembers."""

    def __call__(self, change: StateChange) -> None:
        self.append(change)

    @property
    def names(self) -> list[str]:
        return [str(change.new) for change in self]


STARTED = ["starting", "loading", "ready"]


@pytest.mark.parametrize("options", [{}, {"host": "127.0.0.1"}, {"extra_args": ["--fake-old"]}])
def test_it_is_started_again_at_the_same_address(fake_binary: Path, options: dict[str, Any]) -> None:
    with ManagedServer("m", binary=fake_binary, restart=QUICK, **options) as server:
        before = (server.base_url, server.socket_path, server.api_key, server.served_models)
        first = server.pid
        generation = kill(server)
        error = server.failure_since(generation, 20.0)
        assert error is not None
        assert error.exit_code == -signal.SIGKILL
        assert error.restarting
        assert isinstance(error, ConnectionError)
        assert "was ended by SIGKILL" in str(error)
        server.wait_available(20.0)
        assert server.generation == generation + 1
        assert server.restarts == 1
        assert server.pid != first
        assert (server.base_url, server.socket_path, server.api_key, server.served_models) == before
        with (
            LLM(base_url=server.base_url, api_key=server.api_key)
            if server.socket_path is None
            else LLM(socket=server.socket_path, api_key=server.api_key) as llm
        ):
            assert llm.chat("again") == "echo: again"


def test_the_real_server_is_started_again(real_binary: Path) -> None:
    with LLM("mlxcel-tiny", binary=real_binary, restart=QUICK, ctx_size=512) as llm:
        server = llm.server
        assert isinstance(server, ManagedServer)
        generation = kill(server)
        assert server.failure_since(generation, 20.0) is not None
        server.wait_available(60.0)
        assert llm.chat("What is 1 + 1?", max_tokens=4)


def test_the_states_are_told_in_order(each_binary: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="mlxcel.server")
    history = History()
    server = ManagedServer(
        "m", binary=each_binary, on_state=history, restart=QUICK, extra_args=["--fake-load-seconds", "0.3"]
    )
    assert server.state == "stopped"
    with server:
        eventually(lambda: history.names == STARTED)
        kill(server)
        eventually(lambda: history.names[3:] == ["crashed", "restarting", *STARTED], 20)
    assert history.names[8:] == ["stopped"]
    assert [change.old for change in history[1:]] == [change.new for change in history[:-1]]
    crashed = history[3]
    assert crashed.pid == history[0].pid
    assert "SIGKILL" in crashed.detail
    assert isinstance(crashed.error, MlxcelServerCrashedError)
    assert abs(crashed.at - time.time()) < 60
    for name in ServerState:
        assert any(f": {name}" in message for message in caplog.messages), name


def test_a_callback_that_fails_stops_nothing(fake_binary: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fail(change: StateChange) -> None:
        raise ZeroDivisionError

    with ManagedServer("m", binary=fake_binary, on_state=fail, restart=QUICK) as server:
        kill(server)
        eventually(lambda: server.generation == 2, 20)
        server.wait_available(20.0)
    assert "the on_state callback failed" in caplog.text


def test_a_callback_may_stop_the_server(fake_binary: Path) -> None:
    def stop(change: StateChange) -> None:
        if change.new is ServerState.CRASHED:
            server.stop()

    server = ManagedServer("m", binary=fake_binary, on_state=stop, restart=QUICK)
    server.start()
    kill(server)
    eventually(lambda: server.state is ServerState.STOPPED, 20)
    assert server.generation == 1


def test_a_callback_is_told_that_it_cannot_wait(fake_binary: Path) -> None:
    told: list[str] = []

    def wait(change: StateChange) -> None:
        for forbidden in (server.wait_ready, server.start):
            try:
                forbidden()
            except MlxcelStateError as error:
                told.append(str(error))

    server = ManagedServer("m", binary=fake_binary, restart=QUICK)
    server._supervisor._on_state = wait
    server.spawn()
    eventually(lambda: len(told) >= 2, 20)
    server.stop()
    assert all("on another thread" in message for message in told)


def test_a_callback_may_restart_the_server(fake_binary: Path) -> None:
    def again(change: StateChange) -> None:
        if change.new is ServerState.CRASHED:
            server.restart()

    slow = Restart(backoff=300.0, max_backoff=300.0)
    server = ManagedServer("m", binary=fake_binary, on_state=again, restart=slow)
    with server:
        kill(server)
        eventually(lambda: server.generation == 2, 20)
        server.wait_available(20.0)


def test_a_server_that_keeps_dying_is_given_up(fake_binary: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    history = History()
    server = ManagedServer(
        "m",
        binary=fake_binary,
        on_state=history,
        restart=QUICK,
        extra_args=["--fake-fail-from", str(broken)],
    )
    with server:
        broken.touch()
        assert server.failure_since(kill(server), 20.0) is not None
        with pytest.raises(MlxcelServerCrashedError, match=r"given up after 3 restarts") as caught:
            server.wait_available(60.0)
        assert caught.value.exit_code == 7
        assert "lm_head" in caught.value.stderr_tail
        assert not caught.value.restarting
        assert server.state == "crashed"
        assert server.generation == 4
        assert history.names.count("restarting") == 3
        assert history.names[-1] == "crashed"
        with pytest.raises(MlxcelServerCrashedError, match="given up"):
            server.wait_ready()
        error = server.failure_since(4)
        assert error is not None
        assert not error.restarting
        broken.unlink()
        server.restart()
        assert server.state == "ready"
        assert server.restarts == 0
    assert server.state == "stopped"


def test_restarts_can_be_turned_off(each_binary: Path) -> None:
    with ManagedServer("m", binary=each_binary, restart=None) as server:
        generation = kill(server)
        error = server.failure_since(generation, 20.0)
        assert error is not None
        eventually(lambda: server.state is ServerState.CRASHED, 20)
        with pytest.raises(MlxcelServerCrashedError, match="restarts are off"):
            server.wait_available(20.0)
        assert server.generation == generation
        assert not Path(str(server.socket_path)).parent.exists()


def test_a_crash_while_it_loads_is_an_error_of_the_start(fake_binary: Path) -> None:
    history = History()
    server = ManagedServer(
        "m",
        binary=fake_binary,
        on_state=history,
        restart=QUICK,
        extra_args=["--fake-stuck", "--fake-exit-loading", "3"],
    )
    with pytest.raises(MlxcelServerError, match="exited with code 3 while it started"):
        server.start()
    assert server.generation == 1
    assert history.names == ["starting", "loading", "crashed"]


def test_backoff_is_cut_short_by_stop_and_by_restart(fake_binary: Path) -> None:
    slow = Restart(backoff=300.0, max_backoff=300.0)
    with ManagedServer("m", binary=fake_binary, restart=slow) as server:
        kill(server)
        eventually(lambda: server.state is ServerState.RESTARTING, 20)
        with pytest.raises(MlxcelTimeoutError, match=r"still restarting after 0\.05 s"):
            server.wait_available(0.05)
        server.restart()
        assert server.state == "ready"
        kill(server)
        eventually(lambda: server.state is ServerState.RESTARTING, 20)
        server.stop()
        assert server.state == "stopped"


def test_restart_in_every_state(each_binary: Path) -> None:
    server = ManagedServer("m", binary=each_binary, restart=None)
    server.restart()  # never started
    pids = [server.pid]
    server.restart()  # ready
    pids.append(server.pid)
    server.stop()
    server.restart()  # stopped
    pids.append(server.pid)
    kill(server)
    eventually(lambda: server.state is ServerState.CRASHED, 20)
    server.restart()  # crashed
    pids.append(server.pid)
    assert len(set(pids)) == 4
    error = server.failure_since(2)
    assert error is not None
    server.stop()
    assert not [pid for pid in pids if pid is not None and alive(pid)]


def test_restart_while_it_loads(each_binary: Path) -> None:
    server = ManagedServer("m", binary=each_binary, extra_args=["--fake-load-seconds", "1"])
    server.spawn()
    path = server.socket_path
    server.restart()
    assert server.state == "ready"
    assert server.generation == 2
    assert server.socket_path == path
    server.stop()


def test_requests_that_were_running_hear_of_stop_and_restart(fake_binary: Path) -> None:
    with ManagedServer("m", binary=fake_binary) as server:
        server.restart()
        error = server.failure_since(1)
        assert error is not None
        assert "restarted, by restart()" in str(error)
        assert server.failure_since(2, 0.05) is None, "it runs"
        assert server.failure_since(3, 0.05) is None, "there is none yet"
    error = server.failure_since(2)
    assert error is not None
    assert "stopped" in str(error)
    assert not error.restarting


def test_stop_and_restart_from_many_threads(fake_binary: Path) -> None:
    """Whatever the order, nothing hangs, and the last word is the one that counts."""
    server = ManagedServer("m", binary=fake_binary, restart=QUICK).start()
    unexpected: list[BaseException] = []

    def run(work: Callable[[], object]) -> None:
        try:
            work()
        except (MlxcelServerError, MlxcelStateError):
            pass  # stopped by another thread
        except BaseException as error:  # noqa: BLE001 - shown by the test
            unexpected.append(error)

    work: list[Callable[[], object]] = [
        server.restart,
        server.stop,
        server.start,
        server.stop,
        server.restart,
    ]
    threads = [threading.Thread(target=run, args=[work[n % len(work)]]) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    assert not unexpected
    server.start()
    assert server.state == "ready"
    server.stop()
    assert server.state == "stopped"
    assert server.pid is not None
    assert not alive(server.pid)


def test_a_foreign_file_at_a_chosen_path_survives_a_crash(fake_binary: Path, tmp_path: Path) -> None:
    path = tmp_path / "s"
    rules = Restart(limit=1, backoff=0.5)
    with ManagedServer("m", binary=fake_binary, socket_path=path, restart=rules) as server:
        path.unlink()
        path.write_text("somebody else's")
        assert server.failure_since(kill(server), 20.0) is not None
        with pytest.raises(MlxcelServerCrashedError, match="exists and is not a socket"):
            server.wait_available(20.0)
    assert path.read_text() == "somebody else's"


def test_a_dead_server_s_socket_at_a_chosen_path_makes_way(fake_binary: Path, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with ManagedServer("m", binary=fake_binary, socket_path=path, restart=QUICK) as server:
        for _ in range(2):
            generation = kill(server)
            assert server.failure_since(generation, 20.0) is not None
            server.wait_available(20.0)
    assert not path.exists()


def test_the_private_folder_is_made_again(fake_binary: Path) -> None:
    with ManagedServer("m", binary=fake_binary, restart=QUICK) as server:
        path = Path(str(server.socket_path))
        path.unlink()
        path.parent.rmdir()
        server.restart()
        assert path.exists()
        assert path.parent.stat().st_mode & 0o777 == 0o700


def test_an_exit_without_error_is_a_death_too(fake_binary: Path) -> None:
    with ManagedServer("m", binary=fake_binary, restart=QUICK) as server:
        generation = kill(server, signal.SIGTERM)
        error = server.failure_since(generation, 20.0)
        assert error is not None
        assert "exited with code 0 without being asked" in str(error)
        server.wait_available(20.0)


async def test_an_async_wait_lets_the_loop_run(fake_binary: Path) -> None:
    llm = AsyncLLM(
        "m", binary=fake_binary, restart=Restart(backoff=0.5), extra_args=["--fake-load-seconds", "0.5"]
    )
    async with llm:
        server = llm.server
        assert isinstance(server, ManagedServer)
        await server.wait_available_async()
        kill(server)
        eventually(lambda: server.state is not ServerState.READY, 20)
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        ticker = asyncio.create_task(tick())
        with pytest.raises(MlxcelTimeoutError):
            await server.wait_available_async(0.1)
        await asyncio.gather(*(server.wait_available_async(60.0) for _ in range(200)))
        ticker.cancel()
        assert ticks > 10
    with pytest.raises(MlxcelStateError, match="stopped"):
        await server.wait_available_async(1.0)


SHUTDOWN = """
import os, sys, time
from mlxcel import LLM, Restart
llm = LLM("m", binary=sys.argv[1], restart=Restart(backoff=float(sys.argv[2]), max_backoff=100.0))
os.kill(llm.server.pid, 9)
time.sleep(float(sys.argv[3]))
"""


@pytest.mark.parametrize(("backoff", "sleep"), [("100", "1"), ("0.001", "0.01"), ("0.001", "0")])
def test_the_interpreter_ends_in_the_middle_of_a_recovery(
    each_binary: Path, backoff: str, sleep: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SHUTDOWN, str(each_binary), backoff, sleep],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert "Fatal" not in done.stderr


@pytest.mark.parametrize(
    "wrong", [{"limit": 0}, {"limit": 1.5}, {"window": 0}, {"backoff": "1"}, {"stable": True}]
)
def test_rules_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(MlxcelConfigError, match="Restart"):
        Restart(**wrong)


def test_rules_of_another_type(fake_binary: Path) -> None:
    with pytest.raises(MlxcelConfigError, match=r"mlxcel.Restart\(…\), or None"):
        ManagedServer("m", binary=fake_binary, restart=3)  # type: ignore[arg-type]
