"""Small helpers that tests share."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import psutil

from mlxcel import ManagedServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def eventually(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait until a condition holds; fail after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


async def eventually_async(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """The same without holding up the loop."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    if sys.platform != "linux":
        return True
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def records(path: Path) -> list[dict[str, Any]]:
    """What a fake server wrote down about the requests it got."""
    if not path.exists():
        return []
    whole = path.read_text().rpartition("\n")[0]
    return [json.loads(line) for line in whole.splitlines()]


def keepers_of(runtime: Path) -> list[int]:
    """Shared servers that were started with this runtime folder, and what keeps them."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "environ"]):
        words = process.info["cmdline"] or []
        serving = any("_keeper.py" in word for word in words) or "--exit-when-idle" in words
        if serving and (process.info["environ"] or {}).get("XDG_RUNTIME_DIR") == str(runtime):
            found.append(process.info["pid"])
    return found


def deaf_address() -> tuple[str, list[socket.socket]]:
    """An address where connecting never succeeds: its queue of connections is full. Keep the sockets."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    waiting = []
    for _ in range(4):
        probe = socket.socket()
        probe.setblocking(False)
        probe.connect_ex(listener.getsockname())
        waiting.append(probe)
    return f"http://127.0.0.1:{listener.getsockname()[1]}/v1", [listener, *waiting]


@contextmanager
def connected(model: str, binary: Path, *arguments: str) -> Iterator[httpx2.Client]:
    """A client of a server of its own, started with these arguments."""
    with (
        ManagedServer(model, binary=binary, extra_args=arguments) as server,
        httpx2.Client(
            transport=httpx2.HTTPTransport(uds=server.socket_path),
            headers={"Authorization": f"Bearer {server.api_key}"},
            base_url="http://localhost",
            timeout=120,
            trust_env=False,
        ) as http,
    ):
        yield http
