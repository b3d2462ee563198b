"""The server goes with the Python process that started it, and with no other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support import alive, eventually

START = """
import os, sys
from mlxcel import ManagedServer
server = ManagedServer("m", binary=sys.argv[1]).start()
print(server.pid, server.socket_path, flush=True)
"""


def run(code: str, binary: Path) -> tuple[int, Path, subprocess.CompletedProcess[str]]:
    done = subprocess.run(
        [sys.executable, "-c", START + code, str(binary)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    pid, path = done.stdout.split()[:2]
    return int(pid), Path(path), done


@pytest.mark.parametrize("ending", ["", "sys.exit(3)", "raise RuntimeError('boom')"])
def test_it_ends_with_python(fake_binary: Path, ending: str) -> None:
    pid, path, done = run(ending, fake_binary)
    eventually(lambda: not alive(pid))
    assert not path.parent.exists()
    assert "ResourceWarning" not in done.stderr
    assert ("Traceback" in done.stderr) == ("boom" in ending)


def test_a_forked_child_leaves_it_alone(fake_binary: Path) -> None:
    code = """
child = os.fork()
if child == 0:
    server.stop()
    del server
    sys.exit(0)  # runs the finalizers
assert os.waitpid(child, 0)[1] == 0
assert server.poll() is None
assert os.path.exists(server.socket_path)
os.kill(server.pid, 0)
print("still there")
"""
    pid, _, done = run(code, fake_binary)
    assert "still there" in done.stdout, done.stderr
    eventually(lambda: not alive(pid))


def test_ctrl_c_while_it_starts_cleans_up(fake_binary: Path) -> None:
    code = """
import signal, sys, threading, os
from mlxcel import LLM
threading.Timer(1.0, os.kill, [os.getpid(), signal.SIGINT]).start()
try:
    LLM("m", binary=sys.argv[1], extra_args=["--fake-stuck", "--fake-dump", sys.argv[2]])
except KeyboardInterrupt:
    print("interrupted")
"""
    import json
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        dump = Path(folder) / "facts"
        done = subprocess.run(
            [sys.executable, "-c", code, str(fake_binary), str(dump)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stdout == "interrupted\n", done.stderr
        assert not alive(json.loads(dump.read_text())["pid"])
