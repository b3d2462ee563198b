"""The log of a shared server: bounded, and without the key."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from mlxcel._keeper import Log

if TYPE_CHECKING:
    from pathlib import Path


def test_it_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    log = Log(str(path), 1000, b"")
    for number in range(1000):
        log.write(f"line {number}\n".encode())
        assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 2000
    log.flush()
    assert {file.name for file in tmp_path.iterdir()} == {"x.log", "x.log.1"}
    assert path.read_text().endswith("line 999\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert log.tail().endswith("line 999")
    log.write(b"z" * 1_000_000)
    assert len(log.tail()) <= 65536, "a line without an end is not kept whole"


def test_the_key_is_blotted_out(tmp_path: Path) -> None:
    log = Log(str(tmp_path / "x.log"), 1000, b"secret")
    for piece in (b"my key is sec", b"ret!\nand ", b"again: secret"):
        log.write(piece)
    log.flush()
    assert log.tail() == "my key is ***!\nand again: ***"
    assert (tmp_path / "x.log").read_text() == log.tail()


def test_a_log_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "x.log").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic link"):
        Log(str(tmp_path / "x.log"), 1000, b"")
    assert (tmp_path / "precious").read_text() == "precious"
