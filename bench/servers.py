"""Servers to measure: ours, and its peers, each started on a free port and ended again."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mlxcel import ManagedServer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

START_SECONDS = 300.0


@dataclass(frozen=True)
class Server:
    """Where a server listens (`base_url` ends with `/v1`) and what it calls the model."""

    name: str
    base_url: str
    model: str
    pid: int
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def root_url(self) -> str:
        return self.base_url.removesuffix("/v1")


@contextlib.contextmanager
def mlxcel(
    folder: Path | str, *, extra_args: Sequence[str] = (), n_parallel: int | None = None
) -> Iterator[Server]:
    with ManagedServer(
        folder, host="127.0.0.1", n_parallel=n_parallel, extra_args=extra_args, startup_timeout=START_SECONDS
    ) as server:
        headers = {"Authorization": f"Bearer {server.api_key}"}
        yield Server("mlxcel", server.base_url, server.served_models[0], server.pid or 0, headers)


@contextlib.contextmanager
def mlx_lm(folder: Path) -> Iterator[Server]:
    port = free_port()
    command = [sys.executable, "-m", "mlx_lm", "server", "--model", str(folder), "--port", str(port)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    try:
        base_url = f"http://127.0.0.1:{port}/v1"
        deadline = time.monotonic() + START_SECONDS
        while not answers(f"{base_url}/models"):
            if process.poll() is not None:
                raise SystemExit(f"mlx_lm.server ended with {process.returncode}")
            if time.monotonic() > deadline:
                raise SystemExit(f"mlx_lm.server did not start within {START_SECONDS:g} s")
            time.sleep(0.1)
        yield Server("mlx_lm.server", base_url, str(folder), process.pid)
    finally:
        process.terminate()
        process.wait()


def answers(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
