"""Fixtures: the misbehaving fake server, the real binary, and what a test must leave behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from mlxcel import MlxcelConfigError, _records
from support import eventually, keepers_of

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKOUT = Path(__file__).parents[2]

# The same examples in each run, however long they take: what fails, fails for everybody and at once.
# `--hypothesis-profile=explore` draws others.
hypothesis.settings.register_profile("explore", deadline=None)
hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True)
hypothesis.settings.load_profile("repeatable")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--parity",
        choices=("sample", "all"),
        default="sample",
        help="kinds of checkpoints to compare with mlx-lm",
    )
    parser.addoption(
        "--variations",
        type=int,
        default=0,
        help="so many configurations drawn for each architecture; 0 for a few of some",
    )


@pytest.fixture(scope="session")
def fake_binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`fake_server.py` as an executable that can stand for the binary."""
    launcher = tmp_path_factory.mktemp("bin") / "mlxcel"
    script = Path(__file__).with_name("fake_server.py")
    launcher.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{script}" "$@"\n')
    launcher.chmod(0o755)
    return launcher


@pytest.fixture(scope="session")
def lifeline_binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, but one that knows the lifeline, and says so in its own text as the real one does."""
    launcher = tmp_path_factory.mktemp("newer") / "mlxcel"
    script = Path(__file__).with_name("fake_server.py")
    launcher.write_text(
        f'#!/bin/sh\n# MLXCEL_LIFELINE\nexec "{sys.executable}" -I -S "{script}" "$@" --fake-lifeline\n'
    )
    launcher.chmod(0o755)
    return launcher


@pytest.fixture(params=["newer", "older"])
def each_binary(request: pytest.FixtureRequest) -> Path:
    """Both kinds of server: one that watches its owner, and one that cannot and needs a reaper."""
    name = "lifeline_binary" if request.param == "newer" else "fake_binary"
    binary: Path = request.getfixturevalue(name)
    return binary


@pytest.fixture(scope="session")
def real_binary() -> Path:
    """The release binary. Its absence is a failure: the end-to-end tests are never skipped."""
    named = os.environ.get("MLXCEL_BIN")
    binary = Path(named) if named else CHECKOUT / "target" / "release" / "mlxcel"
    if not os.access(binary, os.X_OK):
        pytest.fail(f"no server binary at {binary}: build it with `cargo build --release`, or set MLXCEL_BIN")
    return binary


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime folder of the test's own, short enough for sockets; servers left in it are ended."""
    folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="mx-"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    yield folder
    with contextlib.suppress(MlxcelConfigError):
        for record in _records.read_all():
            with contextlib.suppress(ProcessLookupError):  # it was about to end by itself
                os.kill(record.pid, signal.SIGTERM)
    eventually(lambda: not keepers_of(folder), 60)
    shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    """Every thread of ours that a test starts ends with it."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + 30
    while True:
        left = [t.name for t in set(threading.enumerate()) - before if t.name.startswith("mlxcel")]
        if not left:
            return
        assert time.monotonic() < deadline, f"threads left behind: {left}"
        time.sleep(0.01)
