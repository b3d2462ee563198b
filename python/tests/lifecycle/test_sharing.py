"""`share=True` with the real binary: one server, whoever comes and however they go."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from mlxcel import (
    LLM,
    AsyncLLM,
    MlxcelConfigError,
    MlxcelServerCrashedError,
    MlxcelServerError,
    MlxcelStateError,
    ServerState,
    SharedServer,
    _records,
)
from support import alive, eventually, keepers_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.e2e

MODEL = "mlxcel-tiny"
IDLE = 2.0
DEADLINE = 60.0

USER = """
import os, sys, time
from mlxcel import LLM, MlxcelServerError
try:
    llm = LLM(sys.argv[2], binary=sys.argv[1], share=True, idle_timeout=float(sys.argv[3]))
except MlxcelServerError as error:
    print("failed", error.exit_code, error.stderr_tail.replace("\\n", " "), flush=True)
    sys.exit(3)
while True:
    answer = llm.chat("Hello", max_tokens=2, temperature=0)
    print(llm.server.pid, answer, flush=True)
    sys.stdin.readline() or sys.exit()
"""

JOIN = """
import sys
from mlxcel import SharedServer
with SharedServer("mlxcel-tiny", binary=sys.argv[1], idle_timeout=float(sys.argv[3])) as server:
    print(server.pid, server.served_models[0], flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def user(real_binary: Path, runtime: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Other processes that use the shared server; each answers a line on stdin with pid and text."""
    made: list[subprocess.Popen[str]] = []

    def start(model: str = MODEL, idle: float = IDLE, code: str = USER) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(real_binary), model, str(idle)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        made.append(process)
        return process

    yield start
    for process in made:
        process.kill()
        with process:
            pass


def said(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    return process.stdout.readline().split(maxsplit=2)


def again(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return said(process)


def files(runtime: Path) -> set[str]:
    return {path.name for path in (runtime / "mlxcel" / "shared").iterdir()} - {"key"}


class Unix(HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=20)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


def leases(server: Any) -> int:
    connection = Unix(server.socket_path)
    with contextlib.closing(connection):
        connection.request("GET", "/props", headers={"Authorization": f"Bearer {server.api_key}"})
        count: int = json.loads(connection.getresponse().read())["leases"]
    return count


def test_clients_of_one_process_share_and_the_last_one_s_end_ends_it(
    real_binary: Path, runtime: Path
) -> None:
    options: dict[str, Any] = {"binary": real_binary, "share": True, "idle_timeout": IDLE}
    first = LLM(MODEL, **options)
    server = first.server
    assert isinstance(server, SharedServer)
    pid = server.pid
    assert pid is not None
    assert server.state is ServerState.READY
    with LLM(MODEL, **options) as second:
        assert second.server is not None
        assert second.server.pid == pid
        assert leases(server) == 2

        async def ask() -> str:
            async with AsyncLLM(MODEL, **options) as llm:
                assert llm.server is not None
                assert llm.server.pid == pid
                return await llm.chat("Hello", max_tokens=2, temperature=0)

        assert asyncio.run(ask()) == second.chat("Hello", max_tokens=2, temperature=0)
    eventually(lambda: leases(server) == 1)
    assert first.chat("Hello", max_tokens=2)
    assert "answered" in server.log_tail
    first.close()
    with pytest.raises(MlxcelStateError):
        first.chat("Hello")
    assert str(server.state) == "stopped"
    assert alive(pid), "it waits for the next user"
    eventually(lambda: not alive(pid) and not files(runtime), DEADLINE)
    assert not list((runtime / "mlxcel" / "servers").iterdir())
    eventually(lambda: not keepers_of(runtime))


def test_what_it_leaves_readable_to_whom(real_binary: Path, runtime: Path) -> None:
    with SharedServer(MODEL, binary=real_binary, idle_timeout=IDLE) as server:
        shared = runtime / "mlxcel" / "shared"
        assert stat.S_IMODE(shared.stat().st_mode) == 0o700
        for path in shared.iterdir():
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
            if not path.is_socket() and path.name != "key":
                assert server.api_key not in path.read_text()
        assert server.pid is not None
        process = psutil.Process(server.pid)
        assert server.api_key not in " ".join(process.cmdline())
        assert os.getsid(server.pid) not in (os.getsid(0), 0)
        assert process.cwd() == "/"
        (record,) = _records.read_all()
        assert (record.pid, record.shared, record.owner_pid) == (server.pid, True, None)
        assert server.api_key not in record.address


def test_ten_processes_at_once_get_one_server(user: Callable[..., subprocess.Popen[str]]) -> None:
    users = [user(code=JOIN) for _ in range(10)]
    answers = [said(process) for process in users]
    assert answers[0][1] == MODEL
    assert len({answer[0] for answer in answers}) == 1, answers


def test_the_death_of_the_first_user_hurts_nobody(
    user: Callable[..., subprocess.Popen[str]], runtime: Path
) -> None:
    first = user()
    pid = said(first)[0]
    second = user()
    assert said(second)[0] == pid
    first.kill()
    first.wait()
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(IDLE * 1.5)  # longer than the server would stay if it missed the second's lease
    assert again(second)[0] == pid
    second.kill()
    eventually(lambda: not alive(int(pid)) and not files(runtime), DEADLINE)


def test_a_server_that_dies_is_brought_back_for_all(
    real_binary: Path, user: Callable[..., subprocess.Popen[str]]
) -> None:
    other = user()
    pid = int(said(other)[0])
    with LLM(MODEL, binary=real_binary, share=True) as llm:
        server = llm.server
        assert isinstance(server, SharedServer)
        assert server.pid == pid
        path, generation = server.socket_path, server.generation
        os.kill(pid, signal.SIGKILL)
        failure = server.failure_since(generation, 10)
        assert isinstance(failure, MlxcelServerCrashedError)
        assert failure.exit_code == -signal.SIGKILL
        assert failure.restarting
        assert "the model is ready" in failure.stderr_tail
        assert llm.chat("Hello", max_tokens=2), "a request that comes later goes to the next process"
        assert server.pid != pid
        assert (server.socket_path, server.generation) == (path, generation + 1)
        assert server.restarts == 1
        assert int(again(other)[0]) == server.pid
        assert server.failure_since(server.generation, 0) is None


async def test_many_tasks_wait_for_it_together(real_binary: Path, runtime: Path) -> None:
    async with AsyncLLM(MODEL, binary=real_binary, share=True, idle_timeout=IDLE) as llm:
        server = llm.server
        assert server is not None
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        answers = await asyncio.gather(
            *(llm.chat("Hello", max_tokens=2, temperature=0) for _ in range(100)), return_exceptions=True
        )
        # Those that were on their way before the death was noticed fail, and say so.
        assert all(isinstance(answer, str | MlxcelServerCrashedError) for answer in answers), answers
        assert any(isinstance(answer, str) for answer in answers)
        assert server.generation == 2
        os.kill(server.pid, signal.SIGSTOP)
        try:
            with pytest.raises(TimeoutError):
                await llm.chat("Hello", max_tokens=2, timeout=0.5)
        finally:
            os.kill(server.pid, signal.SIGCONT)


def test_a_request_under_way_fails_with_what_happened(real_binary: Path, runtime: Path) -> None:
    with LLM(MODEL, binary=real_binary, share=True) as llm:
        assert llm.server is not None
        pid = llm.server.pid
        assert pid is not None
        # Without its end-of-text tokens the model writes on until it is stopped.
        endless = {"2040": -100, "2041": -100}
        with llm.stream("Once", max_tokens=7000, temperature=1, logit_bias=endless) as stream:
            next(stream)
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(MlxcelServerCrashedError, match="SIGKILL"):
                stream.result()


def test_without_restarts_the_error_stays(real_binary: Path, runtime: Path) -> None:
    changes: list[ServerState] = []
    with SharedServer(
        MODEL, binary=real_binary, restart=None, on_state=lambda change: changes.append(change.new)
    ) as server:
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        assert server.failure_since(1, 10) is not None
        for _ in range(2):
            with pytest.raises(MlxcelServerCrashedError, match="SIGKILL") as caught:
                server.wait_available(30)
            assert not caught.value.restarting
    expected = ["starting", "loading", "ready", "crashed", "stopped"]
    assert [str(state) for state in changes] == expected


def test_another_spec_is_another_server(real_binary: Path, runtime: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(Path(__file__).parents[3] / "tiny-model" / MODEL, model)
    with (
        SharedServer(model, binary=real_binary, idle_timeout=IDLE) as one,
        SharedServer(model, binary=real_binary, idle_timeout=IDLE, ctx_size=512) as other,
    ):
        assert one.pid != other.pid
        os.utime(model / "model.safetensors", (1, 1))
        with SharedServer(model, binary=real_binary, idle_timeout=IDLE) as changed:
            assert changed.pid not in (one.pid, other.pid)


def test_stale_files_are_recognised(real_binary: Path, runtime: Path) -> None:
    with SharedServer(MODEL, binary=real_binary, idle_timeout=0.2) as server:
        path = Path(server.socket_path or "")
        record = path.with_suffix(".json")
        written = record.read_text()
        pid = server.pid
    eventually(lambda: not files(runtime), DEADLINE)

    # A record whose pid runs, but started at another time; a socket that nobody listens on; a lock file.
    stale = json.loads(written) | {"pid": os.getpid()}
    record.write_text(json.dumps(stale))
    path.with_suffix(".lock").touch()
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as dead:
        dead.bind(str(path))
    with SharedServer(MODEL, binary=real_binary, idle_timeout=IDLE) as server:
        assert server.pid not in (pid, os.getpid())
        assert server.socket_path == str(path)
        running = json.loads(record.read_text())

        # Nor is a record trusted that names another spec.
        record.write_text(json.dumps(running | {"spec": "{}"}))
        with pytest.raises(MlxcelServerError):
            SharedServer(MODEL, binary=real_binary, idle_timeout=IDLE).start()
        with LLM(socket=path, api_key=server.api_key) as llm:
            assert llm.models(), "the one that runs was left alone"
        record.write_text(json.dumps(running))
    for broken in ("", "{", "[]", '{"pid": "1"}'):  # count as none
        eventually(lambda: not path.exists() and not record.exists(), DEADLINE)
        record.write_text(broken)
        with SharedServer(MODEL, binary=real_binary, idle_timeout=0.2):
            pass


def test_a_stranger_at_the_socket_is_not_joined(real_binary: Path, runtime: Path) -> None:
    """A record of a process that runs, but another process answers."""
    with SharedServer(MODEL, binary=real_binary, idle_timeout=IDLE) as server:
        record = Path(server.socket_path or "").with_suffix(".json")
        values = json.loads(record.read_text())
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
            from mlxcel._identity import start_token

            record.write_text(json.dumps(values | {"pid": other.pid, "started": start_token(other.pid)}))
            with pytest.raises(MlxcelServerError, match=f"process {other.pid}, but process {server.pid}"):
                SharedServer(MODEL, binary=real_binary).start()
            record.write_text(json.dumps(values))
            other.kill()


def test_an_open_folder_is_refused(real_binary: Path, runtime: Path) -> None:
    (runtime / "mlxcel").mkdir()
    (runtime / "mlxcel").chmod(0o755)
    with pytest.raises(MlxcelConfigError, match="mode 0755"):
        LLM(MODEL, binary=real_binary, share=True)


def test_an_older_binary_says_that_it_cannot(fake_binary: Path, runtime: Path) -> None:
    with pytest.raises(MlxcelConfigError, match="--exit-when-idle"):
        LLM("m", binary=fake_binary, share=True)
    assert list(runtime.iterdir()) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"socket": "/tmp/x.sock"},
        {"host": "127.0.0.1"},
        {"port": 0},
        {"api_key": "k"},
        {"shutdown_grace": 1.0},
    ],
)
def test_options_that_contradict_sharing(wrong: dict[str, Any]) -> None:
    with pytest.raises(MlxcelConfigError, match=next(iter(wrong))):
        LLM("m", share=True, **wrong)
    with pytest.raises(MlxcelConfigError, match="idle_timeout"):
        LLM("m", idle_timeout=1)


def test_a_start_that_fails_is_told_to_all(
    user: Callable[..., subprocess.Popen[str]], runtime: Path, tmp_path: Path
) -> None:
    model = tmp_path / "broken"
    shutil.copytree(Path(__file__).parents[3] / "tiny-model" / MODEL, model)
    (model / "model.safetensors").write_bytes(b"\0" * 100)
    for answer in [said(process) for process in [user(str(model)) for _ in range(4)]]:
        assert answer[:2] == ["failed", "1"], answer
        assert "model.safetensors" in answer[2]
    assert not _records.read_all()


def test_a_forked_child_takes_a_lease_of_its_own(real_binary: Path, runtime: Path) -> None:
    with LLM(MODEL, binary=real_binary, share=True, idle_timeout=IDLE) as llm:
        server = llm.server
        assert server is not None
        to_parent, to_child = os.pipe(), os.pipe()
        child = os.fork()
        if child == 0:
            status = 1
            with contextlib.suppress(BaseException):
                os.close(to_child[1])
                answer = llm.chat("Hello", max_tokens=2, temperature=0)
                os.write(to_parent[1], answer.encode())
                os.read(to_child[0], 1)
                llm.close()
                status = 0
            os._exit(status)
        assert leases(server) <= 2
        assert os.read(to_parent[0], 100).decode() == llm.chat("Hello", max_tokens=2, temperature=0)
        assert leases(server) == 2
        os.close(to_child[1])
        assert os.waitpid(child, 0)[1] == 0
        eventually(lambda: leases(server) == 1)
        assert llm.chat("Hello", max_tokens=2)
        for descriptor in (*to_parent, to_child[0]):
            os.close(descriptor)


def test_a_forked_child_does_not_keep_its_dead_parent_s_lease(real_binary: Path, runtime: Path) -> None:
    code = """
import os, sys, time
from mlxcel import LLM
llm = LLM("mlxcel-tiny", binary=sys.argv[1], share=True, idle_timeout=1)
if os.fork():
    print(llm.server.pid, flush=True)
    os._exit(0)
time.sleep(60)
"""
    done = subprocess.Popen(
        [sys.executable, "-c", code, str(real_binary)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with done:
        assert done.stdout is not None
        pid = int(done.stdout.readline())
        try:
            eventually(lambda: not alive(pid), DEADLINE)
        finally:
            os.killpg(done.pid, signal.SIGKILL)


def test_many_threads_bring_it_back_once(real_binary: Path, runtime: Path) -> None:
    with SharedServer(MODEL, binary=real_binary, idle_timeout=IDLE) as server:
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        server.failure_since(1, 10)
        threads = [threading.Thread(target=server.wait_available, args=(30,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert server.generation == 2
        assert leases(server) == 1


def test_closing_ends_a_wait(
    real_binary: Path, runtime: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """`stop` while another thread waits for a hub that never answers."""
    hub = socket.create_server(("127.0.0.1", 0))
    request.addfinalizer(hub.close)
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{hub.getsockname()[1]}")
    monkeypatch.setenv("HF_HOME", str(runtime / "hub"))
    server = SharedServer("owner/name", binary=real_binary)
    problems: list[BaseException] = []

    def start() -> None:
        try:
            server.start()
        except BaseException as error:  # noqa: BLE001
            problems.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    eventually(lambda: server.pid is not None)
    pid = server.pid
    assert pid is not None
    server.stop()
    thread.join(DEADLINE)
    assert not thread.is_alive()
    assert isinstance(problems[0], MlxcelServerError | MlxcelStateError)
    if alive(pid):
        os.kill(pid, signal.SIGKILL)


def test_a_starter_killed_on_the_way_leaves_nothing(real_binary: Path, runtime: Path) -> None:
    """Between the start of the server and the record of it: the keeper ends what nobody knows of."""
    with SharedServer(MODEL, binary=real_binary, idle_timeout=0.2) as server:
        path = Path(server.socket_path or "")
    eventually(lambda: not files(runtime), DEADLINE)
    code = """
import sys
from mlxcel import SharedServer, _share_start
def killed(*_, **__):
    print("spawned", flush=True)
    import os, signal
    os.kill(os.getpid(), signal.SIGKILL)
_share_start.ShareRecord = killed
SharedServer("mlxcel-tiny", binary=sys.argv[1]).start()
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(real_binary)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "spawned\n"), done.stderr
    with SharedServer(MODEL, binary=real_binary, idle_timeout=IDLE) as server:
        assert server.socket_path == str(path)
        eventually(lambda: len(keepers_of(runtime)) == 2)  # one keeper and one server


def test_the_death_of_the_keeper_hurts_nobody(real_binary: Path, runtime: Path) -> None:
    with LLM(MODEL, binary=real_binary, share=True, idle_timeout=0.5) as llm:
        assert llm.server is not None
        pid = llm.server.pid
        assert pid is not None
        (keeper,) = (other for other in keepers_of(runtime) if other != pid)
        os.kill(keeper, signal.SIGKILL)
        eventually(lambda: not alive(keeper))
        for _ in range(3):  # each writes a line to its log, which nobody reads any more
            assert llm.chat("Hello", max_tokens=2)
        assert llm.server.pid == pid
    eventually(lambda: not alive(pid), DEADLINE)
    with SharedServer(MODEL, binary=real_binary, idle_timeout=0.2) as server:
        assert server.pid != pid, "what the first one left behind is no obstacle"
    eventually(lambda: not files(runtime), DEADLINE)


def test_it_ends_with_its_last_reference(real_binary: Path, runtime: Path) -> None:
    server = SharedServer(MODEL, binary=real_binary, idle_timeout=0.5).start()
    pid = server.pid
    assert pid is not None
    del server
    gc.collect()
    eventually(lambda: not alive(pid), DEADLINE)


def test_what_dead_servers_left_is_removed_in_time(real_binary: Path, runtime: Path) -> None:
    shared = runtime / "mlxcel" / "shared"
    with SharedServer(MODEL, binary=real_binary, idle_timeout=0.2):
        pass
    eventually(lambda: not files(runtime), DEADLINE)
    old, young = "0" * 16, "1" * 16
    for digest in (old, young):
        for suffix in (".log", ".json", ".lock", ".5.exit"):
            (shared / f"{digest}{suffix}").write_text("{}")
    for path in shared.glob(f"{old}*"):
        os.utime(path, (1, 1))
    with SharedServer(MODEL, binary=real_binary, idle_timeout=0.2):
        assert not list(shared.glob(f"{old}*"))
        assert len(list(shared.glob(f"{young}*"))) == 4, "somebody may want to read what it said"
