"""The run folder, the records in it, and how a process is told from its successor."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mlxcel import MlxcelConfigError, _identity, _records, _rundir
from mlxcel._records import Record
from support import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime folder of the test's own, short enough for sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="p3-") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder)


def of_this_process() -> Record:
    record = Record.of(os.getpid(), address="unix:/s", model="m", binary="/b/mlxcel")
    assert record is not None
    return record


def test_a_process_is_not_its_successor() -> None:
    token = _identity.start_token(os.getpid())
    assert _identity.is_same(os.getpid(), token)
    assert not _identity.is_same(os.getpid(), None)
    assert not _identity.is_same(os.getpid(), f"{token}0")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        child = _identity.start_token(other.pid)
        assert child is not None
        assert child != token
        other.kill()
        eventually(lambda: _identity.start_token(other.pid) is None)  # a zombie: not waited for yet
    assert not _identity.is_same(other.pid, child)
    assert _identity.start_token(0) is None
    assert _identity.start_token(-1) is None


def test_written_and_read(runtime: Path) -> None:
    record = of_this_process()
    assert _records.write(record)
    path = runtime / "mlxcel" / "servers" / f"{record.pid}.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for folder in (path.parent, path.parent.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert "key" not in path.read_text()
    assert _records.read_all() == [record]
    assert record.alive
    assert record.owner_alive
    _records.remove(record.pid)
    assert _records.read_all() == []
    _records.remove(record.pid)


def test_stale_and_broken_records_are_pruned(runtime: Path) -> None:
    record = of_this_process()
    _records.write(record)
    folder = runtime / "mlxcel" / "servers"
    (folder / "1.json").write_text(json.dumps(asdict(replace(record, pid=1, started="another boot:1"))))
    (folder / "2.json").write_text(json.dumps(asdict(record)))  # a copy under another name
    (folder / "3.json").write_text("{")
    (folder / "4.json").write_text("[]")
    (folder / "5.json").write_text(json.dumps({**asdict(record), "pid": "5"}))
    (folder / "6.json").write_bytes(b"\xff")
    assert _records.read_all() == [record]
    assert sorted(path.name for path in folder.iterdir()) == sorted(["6.json", f"{record.pid}.json"])


def test_nothing_is_written_for_a_server_that_is_gone() -> None:
    assert Record.of(0, address="unix:/s", model="m", binary="b") is None
    assert not _records.write(None)


def test_a_folder_of_others_is_never_trusted(runtime: Path) -> None:
    run = runtime / "mlxcel"
    run.mkdir(mode=0o700)
    run.chmod(0o770)
    with pytest.raises(MlxcelConfigError, match="mode 0770"):
        _rundir.subfolder("shared")
    assert not _records.write(of_this_process()), "no throw"
    assert list(run.iterdir()) == []
    with pytest.raises(MlxcelConfigError, match="mode 0770"):
        _records.read_all()
    run.rmdir()

    elsewhere = runtime / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    run.symlink_to(elsewhere)
    with pytest.raises(MlxcelConfigError, match="not a folder"):
        _rundir.subfolder("shared")
    assert list(elsewhere.iterdir()) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_never_trusted(runtime: Path) -> None:
    run = runtime / "mlxcel"
    run.mkdir(mode=0o700)
    os.chown(run, 65534, -1)
    with pytest.raises(MlxcelConfigError, match="belongs to user 65534"):
        _rundir.subfolder("shared")


def test_the_run_folder_leaves_room_for_a_socket(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _rundir.run_folder() == runtime / "mlxcel"
    long = runtime / ("d" * 90)
    long.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    short = _rundir.run_folder()
    assert short.parent != long
    assert len(os.fsencode(short)) < 60
    runtime.chmod(0o755)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    assert _rundir.run_folder().parent != runtime, "a runtime folder that others may enter is passed over"


def test_tmpdir_has_no_say(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    before = _rundir.run_folder()
    monkeypatch.setenv("TMPDIR", str(runtime))
    monkeypatch.setattr(tempfile, "tempdir", str(runtime))
    assert _rundir.run_folder() == before


def test_import_needs_no_psutil() -> None:
    code = "import sys, mlxcel, mlxcel._records; print('psutil' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
