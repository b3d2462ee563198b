"""The servers of this user that run: those on record, and any other `mlxcel serve`."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _facts, _records

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ._records import Record

__all__ = ["Listed", "from_command", "list_servers"]

_ASK_SECONDS = 1.0


@dataclass(frozen=True)
class Listed:
    """One server. `foreign`: not started by this package, so none of ours to stop."""

    pid: int
    model: str | None
    address: str | None
    foreign: bool
    shared: bool = False
    users: int | None = None
    owner_pid: int | None = None
    owner: str | None = None
    uptime: float | None = None
    memory: int | None = None
    binary: str | None = None
    version: str | None = None


def list_servers() -> list[Listed]:
    """Oldest first. Raises MlxcelConfigError when the folder of the records cannot be trusted."""
    import psutil

    records = {record.pid: record for record in _records.read_all()}
    found = [_listed(record) for record in records.values()]
    for process in psutil.process_iter(["pid", "cmdline", "uids"]):
        uids, command = process.info["uids"], process.info["cmdline"]
        if process.info["pid"] not in records and command and (uids is None or uids.real == os.getuid()):
            stranger = from_command(process.info["pid"], command)
            if stranger is not None:
                found.append(stranger)
    return sorted((_measured(server) for server in found), key=lambda s: (-(s.uptime or 0), s.pid))


def from_command(pid: int, command: Sequence[str]) -> Listed | None:
    """What the arguments of a process tell, if it is an `mlxcel serve`."""
    if len(command) < 2 or Path(command[0]).name not in ("mlxcel", "mlxcel.exe") or command[1] != "serve":
        return None
    host = _option(command, ("--host",))
    port = _option(command, ("--port",))
    if host is not None and ("/" in host or host.endswith(".sock")):
        address = f"unix:{host}"
    else:
        address = f"http://{host or '127.0.0.1'}:{port or 8080}"
    return Listed(
        pid=pid,
        model=_option(command, ("-m", "--model")),
        address=address,
        foreign=True,
        binary=command[0],
    )


def _option(command: Sequence[str], names: Iterable[str]) -> str | None:
    """The last value of an option, as `--name value` or `--name=value`."""
    value = None
    for index, word in enumerate(command):
        for name in names:
            if word == name and index + 1 < len(command):
                value = command[index + 1]
            elif word.startswith(f"{name}=") and name.startswith("--"):
                value = word.partition("=")[2]
    return value


def _listed(record: Record) -> Listed:
    server = Listed(
        pid=record.pid,
        model=record.model,
        address=record.address,
        foreign=False,
        shared=record.shared,
        owner_pid=record.owner_pid,
        binary=record.binary,
        version=record.version,
    )
    if record.shared:
        return replace(server, users=_users(record.address))
    return replace(server, owner=_name(record.owner_pid) if record.owner_alive else "gone")


def _measured(server: Listed) -> Listed:
    import psutil

    try:
        process = psutil.Process(server.pid)
        return replace(
            server, uptime=max(time.time() - process.create_time(), 0.0), memory=process.memory_info().rss
        )
    except psutil.Error:
        return server


def _name(pid: int | None) -> str | None:
    import psutil

    try:
        return None if pid is None else psutil.Process(pid).name()
    except psutil.Error:
        return None


def _users(address: str) -> int | None:
    """How many hold a lease; None from a server that does not tell (now)."""
    from ._probe import Address, Probe
    from ._share_place import read_key

    key = read_key()
    if key is None or not address.startswith("unix:"):
        return None
    try:
        probe = Probe(Address(socket_path=Path(address.removeprefix("unix:"))), key)
        props: Any = probe.get("/props", timeout=_ASK_SECONDS)[1]
    except OSError:
        return None
    count = _facts.number(props, "leases")
    return None if count is None else int(count)
