"""A user's script that uses everything: mypy finds nothing in it at its strictest, and it does its work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

SCRIPT = Path(__file__).parents[1] / "typed" / "user_script.py"


def run(command: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        env={**os.environ, **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_the_types(tmp_path: Path) -> None:
    options = ["--strict", "--no-incremental", "--warn-unreachable", "--disallow-any-unimported"]
    done = run(["-m", "mypy", *options, str(SCRIPT)], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_runs(real_binary: Path, tmp_path: Path) -> None:
    done = run(["-W", "error", str(SCRIPT)], tmp_path, MLXCEL_BIN=str(real_binary))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "used" in done.stdout
