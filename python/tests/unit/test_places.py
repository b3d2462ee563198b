"""Where the binary is found, where sockets go, and what the child is started with."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import socket
import stat
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mlxcel import (
    MlxcelBinaryNotFoundError,
    MlxcelConfigError,
    MlxcelError,
    MlxcelServerError,
    MlxcelTimeoutError,
    _binary,
)
from mlxcel._binary import find_binary, knows
from mlxcel._command import ServeOptions, child_environment, listen_on_port, listen_on_socket, serve_command
from mlxcel._socket_path import (
    PATH_LIMIT,
    SocketFile,
    check_socket_path,
    private_directory,
    refuse_taken_path,
    socket_in,
    sweep,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def executable(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n# LLAMA_API_KEY\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A world without any binary."""
    monkeypatch.delenv("MLXCEL_BIN", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setattr(_binary, "__file__", str(tmp_path / "package" / "_binary.py"))
    return tmp_path


def test_order_of_places(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_path = executable(nowhere / "path" / "mlxcel")
    assert find_binary() == on_path
    bundled = executable(nowhere / "package" / "_bin" / "mlxcel")
    assert find_binary() == bundled
    named = executable(nowhere / "named")
    monkeypatch.setenv("MLXCEL_BIN", str(named))
    assert find_binary() == named
    given = executable(nowhere / "given")
    assert find_binary(given) == given
    assert find_binary("mlxcel") == on_path


def test_not_found_lists_every_place(nowhere: Path) -> None:
    with pytest.raises(MlxcelBinaryNotFoundError) as caught:
        find_binary()
    assert isinstance(caught.value, FileNotFoundError)
    assert isinstance(caught.value, MlxcelServerError)
    message = str(caught.value)
    for place in (
        "binary=",
        "MLXCEL_BIN",
        str(nowhere / "package" / "_bin" / "mlxcel"),
        str(nowhere / "path"),
    ):
        assert place in message
    assert len(caught.value.searched) == 4


def test_a_named_binary_is_never_replaced_by_another(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executable(nowhere / "path" / "mlxcel")
    with pytest.raises(MlxcelBinaryNotFoundError, match=r"binary= .*does not exist"):
        find_binary(nowhere / "missing")
    (nowhere / "text").write_text("")
    monkeypatch.setenv("MLXCEL_BIN", str(nowhere / "text"))
    with pytest.raises(MlxcelBinaryNotFoundError, match=r"MLXCEL_BIN .*not executable"):
        find_binary()
    with pytest.raises(MlxcelBinaryNotFoundError, match="a folder"):
        find_binary(nowhere)


def test_only_the_server_itself_is_taken_from_path(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [nowhere / name for name in ("script", "folder", "data", "dangling", "other", "real", "path")]
    monkeypatch.setenv("PATH", os.pathsep.join(map(str, folders)))
    script, folder, data, dangling, other, real, _ = (place / "mlxcel" for place in folders)
    executable(script).write_text("#!/usr/bin/env python3\nfrom mlxcel.__main__ import main\nmain()\n")
    folder.mkdir(parents=True)
    executable(data).chmod(0o644)
    dangling.parent.mkdir()
    dangling.symlink_to(nowhere / "missing")
    executable(other).write_bytes(b"\x7fELF of another project")
    with pytest.raises(MlxcelBinaryNotFoundError) as caught:
        find_binary()
    for path, why in (
        (script, "another program"),
        (folder, "a folder"),
        (data, "not executable"),
        (dangling, "does not exist"),
        (other, "another program"),
    ):
        assert f"{path} ({why}" in str(caught.value)
    executable(real)
    assert find_binary() == real
    assert find_binary("mlxcel") == real
    assert find_binary(script) == script, "what is named is taken at its word"


def test_private_directory_is_private_and_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("d" * 90)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    directory = private_directory()
    try:
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert len(os.fsencode(socket_in(directory))) <= 103
        assert directory.parent != long
    finally:
        directory.rmdir()


def test_a_disk_without_room_for_temporary_files_is_no_reason_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Python tries each place by writing to it, which a folder for a socket does not need."""

    def full() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", full)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    directory = private_directory()
    assert directory.parent == Path("/tmp")
    directory.rmdir()


def test_runtime_directory_is_used_only_when_it_is_ours_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    tmp_path.chmod(0o700)
    directory = private_directory()
    assert directory.parent == tmp_path
    directory.rmdir()
    tmp_path.chmod(0o755)
    directory = private_directory()
    assert directory.parent != tmp_path
    directory.rmdir()


def test_socket_path_over_the_limit(tmp_path: Path) -> None:
    path = tmp_path / ("ü" * 60)  # bytes count, not characters
    with pytest.raises(MlxcelConfigError, match=f"bytes, and this system allows {PATH_LIMIT}"):
        check_socket_path(path)


def test_socket_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert check_socket_path("x.sock") == tmp_path / "x.sock"
    with pytest.raises(MlxcelConfigError, match="folder of the socket path"):
        check_socket_path("missing/x.sock")


def test_command_line() -> None:
    binary = Path("/b/mlxcel")
    assert serve_command(binary, "m", listen_on_socket(Path("/s")), ServeOptions()) == [
        "/b/mlxcel", "serve", "-m", "m", "--host", "/s", "--port", "0",
    ]  # fmt: skip
    options = ServeOptions(
        alias="a", ctx_size=4096, n_predict=0, n_parallel=2, warmup=False, extra_args=("--metrics",)
    )
    assert serve_command(binary, "m", listen_on_port("::1", 8), options) == [
        "/b/mlxcel", "serve", "-m", "m", "-a", "a", "--host", "::1", "--port", "8", "--ctx-size", "4096",
        "--n-predict", "0", "--n-parallel", "2", "--no-warmup", "--metrics",
    ]  # fmt: skip


def test_child_environment() -> None:
    parent = {
        "PATH": "/bin",
        "LLAMA_ARG_MODEL": "x",
        "LLAMA_ARG_": "y",
        "LLAMA_API_KEY": "old",
        "HF_TOKEN": "t",
    }
    assert child_environment(parent, "new") == {"PATH": "/bin", "HF_TOKEN": "t", "LLAMA_API_KEY": "new"}


def test_errors_survive_pickling() -> None:
    error = pickle.loads(pickle.dumps(MlxcelServerError("m", stderr_tail="t", exit_code=-9)))
    assert (str(error), error.stderr_tail, error.exit_code) == ("m", "t", -9)
    timeout = pickle.loads(pickle.dumps(MlxcelTimeoutError("m", stderr_tail="t")))
    assert (str(timeout), timeout.stderr_tail) == ("m", "t")
    missing = pickle.loads(pickle.dumps(MlxcelBinaryNotFoundError("m", searched=["a"])))
    assert (str(missing), missing.searched) == ("m", ("a",))


def test_errors_are_what_one_would_catch() -> None:
    assert issubclass(MlxcelTimeoutError, TimeoutError)
    assert issubclass(MlxcelConfigError, ValueError)
    for error in (MlxcelTimeoutError, MlxcelConfigError, MlxcelServerError):
        assert issubclass(error, MlxcelError)


def test_folders_of_killed_owners_are_swept(short_path: Path) -> None:
    def folder(name: str, *, days: float) -> Path:
        path = short_path / name
        path.mkdir(mode=0o700)
        return aged(path, days)

    def aged(path: Path, days: float) -> Path:
        then = time.time() - days * 86400
        os.utime(path, (then, then))
        return path

    def bound(path: Path) -> socket.socket:
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(path / "s.sock"))
        server.listen()
        return server

    empty = folder("mlxcel-aaaaaaaa", days=2)
    dead = folder("mlxcel-bbbbbbbb", days=2)
    bound(dead).close()
    aged(dead, 2)
    young = folder("mlxcel-cccccccc", days=0.5)
    used = folder("mlxcel-dddddddd", days=2)
    (used / "notes").touch()
    aged(used, 2)
    other = folder("mlxcel-of-somebody", days=2)
    link = short_path / "mlxcel-eeeeeeee"
    link.symlink_to(other)
    alive = folder("mlxcel-ffffffff", days=2)
    with bound(alive):
        aged(alive, 2)
        sweep(short_path)
        assert not empty.exists()
        assert not dead.exists()
        for kept in (young, used / "notes", other, link, alive / "s.sock"):
            assert os.path.lexists(kept)
    sweep(short_path / "nowhere")


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder in which a socket's path fits, also where pytest's own are too long."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


def test_only_the_very_socket_is_removed(short_path: Path) -> None:
    path = short_path / "s"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        ours = SocketFile(path)
    path.unlink()
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.bind(str(path))  # mostly gets the same inode
        ours.remove()
        assert path.exists()
        SocketFile(path).remove()
        assert not path.exists()
    path.write_text("a file")
    ours.remove()
    SocketFile(path).remove()
    assert path.read_text() == "a file"
    SocketFile(short_path / "nothing").remove()


def test_paths_that_are_taken(short_path: Path) -> None:
    path = short_path / "s"
    refuse_taken_path(path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        refuse_taken_path(path)  # nobody answers: the server's to replace
        server.listen()
        with pytest.raises(MlxcelServerError, match=r"another server answers.*LLM\(socket="):
            refuse_taken_path(path)
    path.unlink()
    makers: list[Callable[[], None]] = [path.mkdir, lambda: path.symlink_to(short_path), path.touch]
    for make in makers:
        make()
        with pytest.raises(MlxcelServerError, match="is not a socket"):
            refuse_taken_path(path)
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()


def test_what_a_binary_knows(tmp_path: Path) -> None:
    binary = tmp_path / "mlxcel"
    chunk = 1 << 20
    for offset in (0, 5, chunk - 3, chunk, 2 * chunk - 1, 3 * chunk):
        binary.write_bytes(b"x" * offset + b"MLXCEL_LIFELINE" + b"y" * 7)
        assert knows(binary, b"MLXCEL_LIFELINE"), offset
        assert not knows(binary, b"MLXCEL_LIFELINES"), offset
    binary.write_bytes(b"")
    assert not knows(binary, b"MLXCEL_LIFELINE")
