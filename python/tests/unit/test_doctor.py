"""What the doctor makes of what it finds: its pure parts, and folders that are broken on purpose."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mlxcel import _binary
from mlxcel._doctor import _installation, _model, _python
from mlxcel._doctor._check import Check, Status, fail, ok, report, text, warn
from mlxcel._doctor._environment import check_environment
from mlxcel._doctor._safetensors import DamagedError, Weights, read_weights
from mlxcel._doctor._sockets import check_folders, check_socket
from mlxcel._units import age, duration, size

if TYPE_CHECKING:
    from collections.abc import Iterator

TINY = Path(__file__).parents[3] / "tiny-model" / "mlxcel-tiny"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the built-in model, to be broken."""
    return shutil.copytree(TINY, tmp_path / "model")


def look(folder: Path) -> Check:
    return _model.check_model(str(folder), folder)[0]


def test_text_and_json_of_a_report() -> None:
    checks = [
        ok("python", "3.12", version="3.12"),
        warn("memory", "tight", "close other programs"),
        fail("binary", "none\nlooked at /a", "reinstall\nor build it", searched=["/a"]),
    ]
    assert text(checks).splitlines() == [
        "ok    python  3.12",
        "warn  memory  tight",
        "              → close other programs",
        "fail  binary  none",
        "              looked at /a",
        "              → reinstall",
        "              → or build it",
        "",
        "Not well: binary. Start with the first one.",
    ]
    assert text(checks[:2]).endswith("It works. Worth a look: memory.")
    assert text(checks[:1]).endswith("All is well.")
    whole = json.loads(json.dumps(report(checks)))
    assert set(whole) == {"format", "mlxcel", "ok", "checks"}
    assert (whole["format"], whole["ok"]) == (1, False)
    assert whole["checks"][2] == {
        "name": "binary",
        "status": "fail",
        "summary": "none\nlooked at /a",
        "advice": "reinstall\nor build it",
        "details": {"searched": ["/a"]},
    }
    assert report(checks[:2])["ok"]


def test_a_whole_model(model: Path) -> None:
    check, weights = _model.check_model("m", model)
    assert check.status is Status.OK, check.summary
    assert check.details["model_type"] == "llama"
    assert weights is not None
    assert 0 < weights.total < (model / "model.safetensors").stat().st_size


def damage(folder: Path, name: str, what: str | bytes | None) -> Path:
    path = folder / name
    if what is None:
        path.unlink()
    else:
        path.write_bytes(what if isinstance(what, bytes) else what.encode())
    return folder


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("config.json", None, "has no config.json"),
        ("config.json", "{", "config.json is not JSON"),
        ("config.json", "[]", "is not a JSON object"),
        ("config.json", b"\xff", "is not JSON"),
        ("tokenizer.json", None, "has no tokenizer.json"),
        ("tokenizer.json", "", "tokenizer.json is not JSON"),
        ("model.safetensors", None, "has no weights"),
        ("model.safetensors", b"", "0 bytes"),
        ("model.safetensors", b"\xff" * 16, "its head does not fit"),
        ("model.safetensors", (2).to_bytes(8, "little") + b"[]", "head that cannot be read"),
        ("model.safetensors.index.json", '{"weight_map": {"a": "x.safetensors"}}', "lacks x.safetensors"),
    ],
)
def test_a_damaged_model(model: Path, name: str, content: str | bytes | None, said: str) -> None:
    check = look(damage(model, name, content))
    assert check.status is Status.FAIL
    assert said in check.summary
    assert check.advice


def test_truncated_weights(model: Path) -> None:
    weights = model / "model.safetensors"
    whole = weights.stat().st_size
    os.truncate(weights, whole - 1)
    check = look(model)
    assert check.status is Status.FAIL
    assert f"is cut off: {whole - 1} bytes of {whole}" in check.summary
    assert "download" in check.advice
    with weights.open("ab") as file:
        file.write(b"12")
    with pytest.raises(DamagedError, match="bytes too many"):
        read_weights(weights)


def test_other_formats_and_other_places(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").touch()
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_text("{}")
    assert "it has m.gguf" in look(tmp_path).summary
    assert "nothing at" in look(tmp_path / "missing").summary
    assert "is a file" in look(tmp_path / "m.gguf").summary


@contextlib.contextmanager
def without_privileges() -> Iterator[None]:
    """Root may read everything; nobody may not."""
    if os.getuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_that_may_not_be_read() -> None:
    outer = Path(tempfile.mkdtemp(dir="/tmp", prefix="mx-"))
    outer.chmod(0o755)
    folder = shutil.copytree(TINY, outer / "model")
    try:
        for mode, path, said in ((0o000, folder, "may not read"), (0o000, outer, "may not look into")):
            path.chmod(mode)
            with without_privileges():
                check = look(folder)
            path.chmod(0o755)
            assert check.status is Status.FAIL
            assert said in check.summary
        (folder / "model.safetensors").chmod(0)
        with without_privileges():
            assert "cannot be read: Permission denied" in look(folder).summary
    finally:
        shutil.rmtree(outer)


def test_repositories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert _model.find_folder("owner/name", None) is None
    check = _model.check_model("owner/name", None)[0]
    assert check.status is Status.WARN
    assert "mlxcel download owner/name" in check.advice
    assert _model.check_model("no-such-thing", None)[0].status is Status.FAIL
    snapshot = tmp_path / "models--owner--name" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    assert _model.find_folder("owner/name@abc", None) == snapshot
    assert _model.find_folder("owner/name", None) is None
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("abc")
    assert _model.find_folder("owner/name", None) == snapshot


def test_memory() -> None:
    small, halves = Weights(1000, 0), Weights(1000, 1000)
    assert _model.check_memory(small).status is Status.OK
    assert _model.check_memory(halves, on_cpu=True).details["needed"] == 2000
    assert _model.check_memory(halves, on_cpu=False).details["needed"] == 1000
    assert _model.check_memory(Weights(1 << 60, 0)).status is Status.FAIL
    assert _model.check_memory(None).status is Status.SKIP


def test_packages() -> None:
    wanted = ["openai>=3", "mlx[cpu]==0.32.4; sys_platform == 'linux'", "tqdm>=4.66", "anyio"]
    have: dict[str, str | None] = {"openai": "3.0.1", "mlx": "0.32.4", "tqdm": "4.100", "anyio": "1"}
    assert _python.lacking(wanted, have) == []
    have |= {"openai": "2.9", "mlx": "0.33.0", "tqdm": None}
    assert _python.lacking(wanted, have) == ["openai>=3", "mlx[cpu]==0.32.4", "tqdm>=4.66"]
    assert _python.check_packages().name == "packages"
    assert _python.check_python().status is Status.OK


def test_environment(tmp_path: Path) -> None:
    assert check_environment({"PATH": "/bin", "OPENAI_API_KEY": "k"}).status is Status.OK
    (tmp_path / "libmlx.so").touch()
    troubles = {
        "LD_LIBRARY_PATH": f"/nowhere:{tmp_path}",
        "LD_PRELOAD": "/x.so",
        "LLAMA_ARG_CTX_SIZE": "1",
        "MLXCEL_API_KEY": "very-secret",
        "LLAMA_API_KEY": "also-secret",
    }
    check = check_environment(troubles)
    assert check.status is Status.WARN
    for said in (str(tmp_path), "LD_PRELOAD", "LLAMA_ARG_CTX_SIZE"):
        assert said in check.summary
    assert "secret" not in json.dumps(report([check]))


def test_what_a_binary_says() -> None:
    assert _installation.read_version("mlxcel 0.1.0 (MLX 0.32.4)\n") == ("0.1.0", "0.32.4")
    assert _installation.read_version("mlxcel 0.0.9") == ("0.0.9", None)
    assert _installation.read_version("something else") == (None, None)
    said: dict[str, str] = {
        "x: error while loading shared libraries: libmlx.so: cannot open shared object file": "libmlx",
        "dyld[1]: Library not loaded: @rpath/libmlx.dylib": "libmlx",
        "x: error while loading shared libraries: libz.so": "a library",
        "/lib/libc.so.6: version `GLIBC_2.99' not found": "older than the binary",
        "[Errno 8] Exec format error: 'x'": "another kind of machine",
        "": "status 127",
    }
    for output, expected in said.items():
        what, advice = _installation.run_problem(127, output)
        assert expected in what
        assert advice
    listing = "\tlinux-vdso.so.1 (0x1)\n\tlibmlx.so => /a/bin/../lib/libmlx.so (0x2)\n"
    assert _installation.libmlx_in(listing) == "/a/lib/libmlx.so"
    assert _installation.libmlx_in("dyld[2]: <ID> /a/libmlx.dylib") == "/a/libmlx.dylib"
    assert _installation.libmlx_in("libmlx.so => not found") is None


def test_no_binary_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLXCEL_BIN", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(_binary, "__file__", str(tmp_path / "package" / "_binary.py"))
    script = tmp_path / "mlxcel"
    script.write_text("#!/usr/bin/env python3\nimport mlxcel\n")
    script.chmod(0o755)
    check, path, _ = _installation.check_binary(None)
    assert path is None
    assert check.status is Status.FAIL
    assert f"{script} (another program of that name)" in check.summary
    assert len(check.details["searched"]) == 5


def test_a_binary_that_does_not_run(tmp_path: Path) -> None:
    binary = tmp_path / "mlxcel"
    binary.write_bytes(b"\x7fELF nonsense")
    binary.chmod(0o755)
    check, path, _ = _installation.check_binary(str(binary))
    assert path is None
    assert check.status is Status.FAIL
    assert "another kind of machine" in check.summary


def test_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="mx-") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        private, run = check_folders()
        assert (private.status, run.status) == (Status.OK, Status.OK)
        assert private.details["folder"] == folder
        assert list(Path(folder).iterdir()) == [], "it leaves nothing"
        (Path(folder) / "mlxcel").mkdir(mode=0o700)
        (Path(folder) / "mlxcel").chmod(0o777)
        assert check_folders()[1].status is Status.WARN


def test_sockets() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="mx-") as name:
        path = Path(name) / "s"
        said: list[tuple[str, Any]] = [(str(check_socket(str(path)).summary), "nothing at")]
        path.touch()
        said.append((check_socket(str(path)).summary, "is not a socket"))
        path.unlink()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            assert check_socket(str(path)).status is Status.OK
        said.append((check_socket(str(path)).summary, "nobody listens"))
        said.append((check_socket(f"{name}/{'d' * 120}").summary, "bytes, and this system allows"))
        for summary, expected in said:
            assert expected in summary


def test_units() -> None:
    assert [size(count) for count in (0, 1023, 1536, 20 << 20, 3 << 40)] == [
        "0 B", "1023 B", "1.5 KiB", "20 MiB", "3.0 TiB",
    ]  # fmt: skip
    assert [age(seconds) for seconds in (0, 59.9, 61, 7260, 90000)] == [
        "0s",
        "59s",
        "1m 1s",
        "2h 1m",
        "1d 1h",
    ]
    assert [duration(seconds) for seconds in (0.00321, 1.25, 75)] == ["3.21 ms", "1.25 s", "75 s"]
