"""What servers this user started, written down for `mlxcel ps` and `mlxcel stop`.

One JSON file a server, `servers/<pid>.json` in the run folder. It never holds a
key. Losing a record costs a line in a listing, so writing and removing never
raise: a server must not fail to start over it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Self

from . import _identity, _rundir
from ._version import __version__
from .errors import MlxcelError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Record", "parse", "path_of", "read_all", "remove", "sweep", "write", "write_atomically"]

logger = logging.getLogger("mlxcel.server")

_FOLDER = "servers"
_SIZE_LIMIT = 1 << 16


@dataclass(frozen=True)
class Record:
    """A server that was started here.

    `started` and `owner_started` are start tokens (`_identity`): a pid alone
    may be somebody else's by now. `owner_pid` is the Python process the server
    belongs to, None for a shared one. `created` is seconds since the epoch.
    """

    pid: int
    started: str
    owner_pid: int | None
    owner_started: str | None
    address: str
    model: str
    binary: str
    version: str
    created: float
    shared: bool = False

    @classmethod
    def of(
        cls, pid: int, *, address: str, model: str, binary: str | os.PathLike[str], shared: bool = False
    ) -> Self | None:
        """The record of a server that runs and that this process starts; None when it is gone already.

        `address` is `unix:/path` or `http://host:port`.
        """
        started = _identity.start_token(pid)
        if started is None:
            return None
        owner = None if shared else os.getpid()
        return cls(
            pid=pid,
            started=started,
            owner_pid=owner,
            owner_started=None if owner is None else _identity.start_token(owner),
            address=address,
            model=model,
            binary=os.fspath(binary),
            version=__version__,
            created=time.time(),
            shared=shared,
        )

    @property
    def alive(self) -> bool:
        """Whether the process that was recorded still runs."""
        return _identity.is_same(self.pid, self.started)

    @property
    def owner_alive(self) -> bool:
        """Whether the Python process that owns it still runs."""
        return self.owner_pid is not None and _identity.is_same(self.owner_pid, self.owner_started)


def write(record: Record | None) -> bool:
    """Keep a record; False (and a line in the log) when that cannot be. Never raises."""
    if record is None:
        return False
    try:
        _rundir.subfolder(_FOLDER)
        write_atomically(path_of(record.pid), json.dumps(asdict(record)))
    except (OSError, MlxcelError) as error:
        logger.debug("no record of server %d for `mlxcel ps`: %s", record.pid, error)
        return False
    return True


def remove(pid: int | None) -> None:
    """Forget a server that ended. Never raises."""
    if pid is not None:
        with contextlib.suppress(OSError, MlxcelError):
            path_of(pid).unlink(missing_ok=True)


def path_of(pid: int | str) -> Path:
    """Where the record of a process is."""
    return _rundir.run_folder() / _FOLDER / f"{pid}.json"


def read_all() -> list[Record]:
    """The servers on record that run, oldest first. Records of others, and unreadable ones, are removed.

    Raises MlxcelConfigError when the folder cannot be trusted.
    """
    folder = _rundir.run_folder() / _FOLDER
    for part in (folder.parent, folder):
        if not os.path.lexists(part):
            return []
        _rundir.check_trusted(part)
    found = []
    for path in folder.glob("*.json"):
        try:
            with path.open(encoding="utf-8") as file:
                record = parse(file.read(_SIZE_LIMIT))
        except (OSError, UnicodeDecodeError):
            continue
        if record is not None and record.alive and path.name == f"{record.pid}.json":
            found.append(record)
        else:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
    return sorted(found, key=lambda record: (record.created, record.pid))


def sweep() -> None:
    """Remove the records of servers whose owners were killed. Never raises."""
    with contextlib.suppress(OSError, MlxcelError):
        read_all()


def parse(text: str) -> Record | None:
    """A record from its file's text; None when it is not one."""
    try:
        values = json.loads(text)
    except ValueError:
        return None
    if not isinstance(values, dict):
        return None
    types: dict[str, tuple[type, ...]] = {
        "pid": (int,),
        "created": (int, float),
        "owner_pid": (int, type(None)),
        "owner_started": (str, type(None)),
        "shared": (bool,),
    }
    for field in fields(Record):
        if not isinstance(values.get(field.name), types.get(field.name, (str,))):
            return None
    return Record(**{field.name: values[field.name] for field in fields(Record)})


def write_atomically(path: Path, text: str) -> None:
    """Put a file (0600) in place at once: a reader sees the old one or the new one, never a part."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
