"""Where the binary is found, where sockets go, and what the child is started with."""

from __future__ import annotations

import os
import pickle
import stat
import tempfile
from pathlib import Path

import pytest

from mlxcel import (
    MlxcelBinaryNotFoundError,
    MlxcelConfigError,
    MlxcelError,
    MlxcelServerError,
    MlxcelTimeoutError,
    _binary,
)
from mlxcel._binary import find_binary
from mlxcel._command import ServeOptions, child_environment, listen_on_port, listen_on_socket, serve_command
from mlxcel._socket_path import PATH_LIMIT, check_socket_path, private_directory, socket_in


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
