"""`python -m mlxcel` with real servers, and with installations that are broken on purpose."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from mlxcel import LLM, ManagedServer, SharedServer, _process_list, _ps, _records, _stop
from mlxcel._process_list import Listed, from_command
from support import alive, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.e2e

MODEL = "mlxcel-tiny"
TINY = Path(__file__).parents[3] / "tiny-model" / MODEL


def run(*arguments: str, key: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "MLXCEL_API_KEY"}
    if key is not None:
        environment["MLXCEL_API_KEY"] = key
    return subprocess.run(
        [sys.executable, "-m", "mlxcel", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=environment,
    )


def listed() -> dict[int, dict[str, Any]]:
    done = run("ps", "--json")
    assert done.returncode == 0, done.stderr
    return {server["pid"]: server for server in json.loads(done.stdout)}


def doctor(*arguments: str, key: str | None = None) -> tuple[int, dict[str, dict[str, Any]], str]:
    done = run("doctor", "--json", *arguments, key=key)
    assert not done.stderr, done.stderr
    report = json.loads(done.stdout)
    assert report["ok"] == (done.returncode == 0)
    return done.returncode, {check["name"]: check for check in report["checks"]}, done.stdout


@pytest.fixture
def foreign(real_binary: Path, runtime: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server that somebody started by hand."""
    command = [str(real_binary), "serve", "-m", str(TINY), "--host", str(runtime / "f.sock"), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_ps_shows_whose_each_server_is(
    real_binary: Path, runtime: Path, foreign: subprocess.Popen[bytes]
) -> None:
    with (
        ManagedServer(TINY, binary=real_binary) as own,
        SharedServer(TINY, binary=real_binary, idle_timeout=2) as shared,
        SharedServer(TINY, binary=real_binary, idle_timeout=2),
    ):
        assert own.pid is not None
        assert shared.pid is not None
        servers = listed()
        mine, ours, theirs = servers[own.pid], servers[shared.pid], servers[foreign.pid]
        assert (mine["foreign"], mine["shared"], mine["owner_pid"]) == (False, False, os.getpid())
        assert mine["address"] == f"unix:{own.socket_path}"
        assert (ours["shared"], ours["users"], ours["owner_pid"]) == (True, 2, None)
        assert (theirs["foreign"], theirs["model"]) == (True, str(TINY))
        assert theirs["address"] == f"unix:{runtime}/f.sock"
        for server in (mine, ours, theirs):
            assert server["memory"] > 1 << 20
            assert 0 <= server["uptime"] < 600
        done = run("ps")
        assert own.api_key not in done.stdout
        lines = {line.split()[0]: line for line in done.stdout.splitlines()}
        assert "shared (2 users)" in lines[str(shared.pid)]
        assert "foreign" in lines[str(foreign.pid)]
        assert f"({os.getpid()})" in lines[str(own.pid)]
    assert own.pid not in listed()


def test_stop_touches_only_our_own(
    real_binary: Path, runtime: Path, foreign: subprocess.Popen[bytes]
) -> None:
    with ManagedServer(TINY, binary=real_binary, restart=None) as own, LLM(TINY, binary=real_binary) as other:
        assert own.pid is not None
        assert other.server is not None
        done = run("stop", str(foreign.pid), str(os.getpid()), "999999999")
        assert done.returncode == 1
        assert not done.stdout
        refusals = done.stderr.splitlines()
        assert "not one that this package started" in refusals[0]
        assert "not a server" in refusals[1]
        assert "no such process" in refusals[2]
        assert foreign.poll() is None

        done = run("stop", str(own.pid), str(own.pid), "--json")
        assert done.returncode == 0, done.stderr
        (outcome,) = json.loads(done.stdout)
        assert outcome["stopped"]
        assert own.poll() == 0, "it was asked, not killed"
        assert run("stop", str(own.pid)).returncode == 1
        assert other.server.pid in listed()


def test_stop_all(real_binary: Path, runtime: Path, foreign: subprocess.Popen[bytes]) -> None:
    assert run("stop", "--all").stdout == "no server of yours runs\n"
    with (
        ManagedServer(TINY, binary=real_binary, restart=None) as own,
        SharedServer(TINY, binary=real_binary) as shared,
    ):
        done = run("stop", "--all")
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == 2
        assert "starts another with the next request" in done.stdout
        for pid in (own.pid, shared.pid):
            assert pid is not None
            eventually(lambda pid=pid: not alive(pid))  # type: ignore[misc]
        shared.wait_available(60)
        assert shared.generation == 2, "whoever shares it brings it back"
    assert foreign.poll() is None


def test_stop_checks_the_start_of_a_process(runtime: Path, foreign: subprocess.Popen[bytes]) -> None:
    """A record of a server that is gone, whose pid somebody else has by now."""
    record = _records.Record.of(foreign.pid, address="unix:/x", model="m", binary="b")
    assert record is not None
    assert _records.write(replace(record, started="another boot:1"))
    done = run("stop", str(foreign.pid))
    assert done.returncode == 1
    assert "not one that this package started" in done.stderr
    assert _stop.stop(replace(record, started="another boot:1"), grace=1).detail == "had ended already"
    assert foreign.poll() is None
    assert listed()[foreign.pid]["foreign"]


def test_stop_kills_what_does_not_end(fake_binary: Path, runtime: Path) -> None:
    flags = ["--fake-ignore-sigterm"]
    with ManagedServer("m", binary=fake_binary, extra_args=flags, restart=None, shutdown_grace=0.1) as server:
        assert server.pid is not None
        done = run("stop", str(server.pid), "--grace", "0.2")
        assert done.returncode == 0, done.stderr
        assert "killed: it did not end within 0.2 s" in done.stdout
        eventually(lambda: server.poll() == -signal.SIGKILL)


@pytest.mark.parametrize(
    "wrong", [[], ["no"], ["stop"], ["stop", "x"], ["stop", "--all", "1"], ["stop", "1", "--grace", "-1"]]
)
def test_wrong_command_lines(wrong: list[str], runtime: Path) -> None:
    assert run(*wrong).returncode == 2


def test_an_untrusted_folder_is_one_line_on_stderr(runtime: Path) -> None:
    (runtime / "mlxcel").mkdir()
    (runtime / "mlxcel").chmod(0o777)
    for command in (["ps"], ["stop", "--all"]):
        done = run(*command)
        assert done.returncode == 1
        assert re.fullmatch(r"error: .*mode 0777.*\n", done.stderr), done.stderr


def test_doctor_finds_nothing_wrong(real_binary: Path, runtime: Path) -> None:
    code, checks, _ = doctor("--binary", str(real_binary), "--model", str(TINY))
    ills = {name: check["summary"] for name, check in checks.items() if check["status"] == "fail"}
    assert code == 0, ills
    names = "python packages environment binary libmlx sockets model memory start answer"
    assert {*names.split(), "run folder"} == set(checks)
    assert checks["libmlx"]["details"]["loaded"] == version("mlx")
    assert checks["start"]["details"]["device"] in ("cpu", "gpu")
    assert 0 < checks["start"]["details"]["answers_after"] <= checks["start"]["details"]["ready_after"]
    assert checks["answer"]["details"]["tokens_per_second"] > 0
    done = run("doctor", "--binary", str(real_binary), "--model", str(TINY))
    assert done.returncode == 0
    assert "tokens/s" in done.stdout
    assert not _records.read_all(), "its server is gone"


def test_doctor_without_a_binary(runtime: Path) -> None:
    code, checks, _ = doctor("--binary", "/nowhere/mlxcel")
    assert code == 1
    assert "/nowhere/mlxcel (does not exist)" in checks["binary"]["summary"]
    assert "--binary" in checks["binary"]["advice"]
    assert checks["start"]["status"] == "skip"


@pytest.fixture
def installation(real_binary: Path, tmp_path: Path) -> Path:
    """A copy of the binary with a libmlx beside it, where a wheel has it."""
    spec = find_spec("mlx")
    assert spec is not None
    assert spec.submodule_search_locations
    mlx = Path(next(iter(spec.submodule_search_locations)))
    shutil.copytree(mlx / "lib", tmp_path / "mlx" / "lib")
    for libraries in mlx.parent.glob("mlx_*.libs"):
        (tmp_path / libraries.name).symlink_to(libraries)
    binary = tmp_path / "mlxcel" / "_bin" / "mlxcel"
    binary.parent.mkdir(parents=True)
    shutil.copy2(real_binary, binary)
    return binary


def libmlx(installation: Path) -> Path:
    (library,) = (installation.parents[2] / "mlx" / "lib").glob("libmlx.*")
    return library


@pytest.mark.skipif(sys.platform == "darwin", reason="a library that was changed loses its signature there")
def test_doctor_with_another_libmlx(installation: Path, runtime: Path) -> None:
    library = libmlx(installation)
    old = version("mlx").encode()
    new = b"9" + old[1:]
    library.write_bytes(library.read_bytes().replace(old + b"\0", new + b"\0"))
    code, checks, _ = doctor("--binary", str(installation), "--model", str(TINY))
    assert code == 1
    check = checks["libmlx"]
    assert check["status"] == "fail", check
    assert check["details"]["path"] == str(library)
    assert (check["details"]["loaded"], check["details"]["wanted"]) == (new.decode(), old.decode())
    assert f"mlx=={old.decode()}" in check["advice"]


def test_doctor_with_a_broken_libmlx(installation: Path, runtime: Path) -> None:
    libmlx(installation).write_bytes(b"")
    code, checks, _ = doctor("--binary", str(installation), "--model", str(TINY))
    assert code == 1
    assert "libmlx cannot be loaded" in checks["binary"]["summary"]
    assert "pip install" in checks["binary"]["advice"]


def test_doctor_with_truncated_weights(real_binary: Path, runtime: Path, tmp_path: Path) -> None:
    model = shutil.copytree(TINY, tmp_path / "model")
    os.truncate(model / "model.safetensors", 1000)
    code, checks, _ = doctor("--binary", str(real_binary), "--model", str(model))
    assert code == 1
    assert "model.safetensors" in checks["model"]["summary"]
    assert checks["start"]["status"] == "skip"


def test_doctor_tells_what_the_server_says(real_binary: Path, runtime: Path, tmp_path: Path) -> None:
    """A folder that looks whole, and that no server can load."""
    model = shutil.copytree(TINY, tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"model_type": "no-such-thing"}))
    code, checks, _ = doctor("--binary", str(real_binary), "--model", str(model))
    assert code == 1
    assert checks["model"]["status"] == "ok"
    assert "no-such-thing" in checks["start"]["summary"]


def test_doctor_on_a_server_that_runs(real_binary: Path, runtime: Path) -> None:
    with ManagedServer(TINY, binary=real_binary) as server:
        path = server.socket_path
        assert path is not None
        code, checks, output = doctor("--socket", path, key=server.api_key)
        assert code == 0, checks
        assert checks["connection"]["details"]["models"] == [MODEL]
        assert checks["answer"]["status"] == "ok"
        assert server.api_key not in output

        code, checks, output = doctor("--socket", path, key="wrong-key-of-mine")
        assert code == 1
        assert "refuses the key" in checks["connection"]["summary"]
        assert "wrong-key-of-mine" not in output
        assert "MLXCEL_API_KEY" in doctor("--socket", path)[1]["connection"]["advice"]

        code, checks, _ = doctor("--socket", path, "--model", "other", key=server.api_key)
        assert code == 1
        assert "does not serve other" in checks["answer"]["summary"]


def test_doctor_on_a_dead_socket_and_a_dead_port(runtime: Path) -> None:
    path = runtime / "dead.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    code, checks, _ = doctor("--socket", str(path))
    assert code == 1
    assert "nobody listens" in checks["socket"]["summary"]
    assert checks["connection"]["status"] == "skip"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code, checks, _ = doctor("--base-url", f"http://127.0.0.1:{port}/v1")
    assert code == 1
    assert "is the server running" in checks["connection"]["advice"]
    code, checks, _ = doctor("--base-url", "localhost:8080")
    assert code == 1
    assert "base_url is a full address" in checks["connection"]["summary"]


def test_what_a_command_line_tells() -> None:
    server = from_command(7, ["/opt/mlxcel", "serve", "--model=owner/name", "--port", "9", "--port=10"])
    assert server == Listed(7, "owner/name", "http://127.0.0.1:10", foreign=True, binary="/opt/mlxcel")
    assert from_command(7, ["mlxcel", "serve", "-m", "m", "--host", "x.sock"]) == Listed(
        7, "m", "unix:x.sock", foreign=True, binary="mlxcel"
    )
    for command in (
        ["mlxcel"],
        ["mlxcel", "download"],
        ["python", "-m", "mlxcel"],
        ["/x/mlxcel-old", "serve"],
    ):
        assert from_command(7, command) is None


def test_the_table() -> None:
    servers = [
        Listed(1, "m", "unix:/s", foreign=False, owner_pid=5, owner="gone", uptime=61, memory=3 << 20),
        Listed(22222, None, None, foreign=True),
    ]
    assert _ps.table(servers).splitlines() == [
        "PID    MODEL  ADDRESS  OWNER         UPTIME  MEMORY",
        "1      m      unix:/s  gone (was 5)  1m 1s   3.0 MiB",
        "22222  ?      ?        foreign       ?       ?",
    ]


def test_a_process_that_ends_during_the_listing(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(pid: int) -> None:
        raise psutil.NoSuchProcess(pid)

    monkeypatch.setattr(psutil, "Process", gone)
    assert all(server.uptime is None for server in _process_list.list_servers())
