"""The real binary with the built-in model behind a port, for SDKs that know nothing of `mlxcel`.

Nothing but the standard library: the environment is the SDK's.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKOUT = Path(__file__).parents[3]
MODEL = "mlxcel-tiny"

# What the built-in model can do: see tiny-model/README.md.
GREET = "Hello!"
EXTRACT = "Extract name and age as JSON: Anna is 31 years old."
ANNA = {"name": "Anna", "age": 31}
USE_TOOL = "Use the tool to add 17 and 25."


@dataclass(frozen=True)
class Server:
    origin: str
    """For SDKs that put `/v1` before their paths themselves."""
    key: str

    @property
    def url(self) -> str:
        return f"{self.origin}/v1"


class AddTool:
    """The tool that every SDK is given, and what it was called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def __call__(self, a: int, b: int) -> str:
        self.calls.append((a, b))
        return json.dumps({"result": a + b})


def binary() -> Path:
    named = os.environ.get("MLXCEL_BIN")
    path = Path(named) if named else CHECKOUT / "target" / "release" / "mlxcel"
    if not os.access(path, os.X_OK):
        raise FileNotFoundError(f"no server at {path}: `cargo build --release`, or set MLXCEL_BIN")
    return path


@contextlib.contextmanager
def serve() -> Iterator[Server]:
    key = "a-key-of-the-tests"
    command = [str(binary()), "serve", "--model", MODEL, "--port", "0"]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, "LLAMA_API_KEY": key},
            text=True,
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                log.seek(0)
                raise RuntimeError(f"the server did not start:\n{log.read()[-2000:]}")
            started: dict[str, Any] = json.loads(line)
            origin = started["address"]
            _await_model(origin)
            yield Server(origin, key)
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _await_model(origin: str, seconds: float = 120) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + seconds
    while True:
        try:
            with direct.open(f"{origin}/health", timeout=10):
                return
        except urllib.error.HTTPError as error:  # 503 until the model is there
            if error.code != 503 or time.monotonic() > deadline:
                raise
        time.sleep(0.1)
