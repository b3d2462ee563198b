"""Starts a server that is not ours, for tests of connect mode."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from typing import TYPE_CHECKING

import httpx2

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def other_server(
    command: Sequence[str], port: int, log: Path, environment: Mapping[str, str], seconds: float = 120.0
) -> Iterator[str]:
    """Run a command until the block ends; gives its `/v1` address once it lists its models."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env={**os.environ, **environment}
        )
    url = f"http://127.0.0.1:{port}/v1"
    deadline = time.monotonic() + seconds
    try:
        with httpx2.Client(trust_env=False, timeout=5) as client:
            while True:
                with contextlib.suppress(httpx2.TransportError):
                    if client.get(f"{url}/models").status_code == 200:
                        break
                assert process.poll() is None, log.read_text()[-2000:]
                assert time.monotonic() < deadline, log.read_text()[-2000:]
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
