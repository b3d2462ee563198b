"""`python -m mlxcel batch` with a server of its own, killed in the middle."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil
import pytest

from support import eventually

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.e2e

LINES = 200


def test_killed_with_its_server(tmp_path: Path, real_binary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLXCEL_BIN", str(real_binary))
    given, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    asked = [f"What is {number % 50} + {number // 4}?" for number in range(LINES)]
    given.write_text(
        "".join(
            json.dumps({"messages": text, "temperature": 0, "max_tokens": 20, "id": number}) + "\n"
            for number, text in enumerate(asked)
        )
    )
    command = [sys.executable, "-m", "mlxcel", "batch", str(given), str(out), "--model", "mlxcel-tiny"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    eventually(lambda: out.exists() and out.read_bytes().count(b"\n") >= 20, 120)
    servers = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    assert out.read_bytes().count(b"\n") < LINES
    eventually(lambda: not any(server.is_running() for server in servers), 60)

    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert [record["id"] for record in records] == list(range(LINES))
    assert records[5]["text"] == "5 + 1 = 6"
