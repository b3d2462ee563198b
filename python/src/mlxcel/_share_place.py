"""The files of a shared server, and the lock under which they change.

In `shared/` of the run folder, named after the spec's digest:

    .lock   flock; held while a server is started or its files are removed
    .json   which process serves (ShareRecord)
    .sock   where; the same for every process that serves this spec, one after the other
    .log    what it writes; `.log.1` the part before
    .<pid>.exit   how a process ended that failed

and `key`, the one key of all this user's shared servers.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from . import _identity, _records, _rundir
from .errors import MlxcelServerError, MlxcelTimeoutError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Place", "ShareRecord", "read_key", "shared_key"]

_FOLDER = "shared"
_KEY = "key"
_LOCK_PAUSE = 0.01
_TAIL_BYTES = 16384
_ABANDONED = 3600.0  # seconds after which nobody reads the log of a dead server any more
_SUFFIXES = (".json", ".sock", ".log", ".log.1")


@dataclass(frozen=True)
class ShareRecord:
    """A process that serves a spec."""

    pid: int
    started: str
    spec: str

    @property
    def alive(self) -> bool:
        return _identity.is_same(self.pid, self.started)


class Place:
    """Where the server of one digest lives."""

    def __init__(self, digest: str) -> None:
        self.folder = _rundir.subfolder(_FOLDER)
        self.digest = digest
        self.lock_file = self._file(".lock")
        self.record_file = self._file(".json")
        self.socket = self._file(".sock")
        self.log = self._file(".log")

    def _file(self, suffix: str) -> Path:
        return self.folder / f"{self.digest}{suffix}"

    def exit_file(self, pid: int | str) -> Path:
        return self._file(f".{pid}.exit")

    @contextlib.contextmanager
    def locked(self, timeout: float) -> Iterator[int]:
        """Hold the lock; gives its descriptor. MlxcelTimeoutError after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while (descriptor := self._try_lock()) is None:
            if time.monotonic() >= deadline:
                raise MlxcelTimeoutError(
                    f"another process has been starting this shared server for {timeout:g} s "
                    f"(it holds {self.lock_file}); is it stopped in a debugger?"
                )
            time.sleep(_LOCK_PAUSE)
        try:
            yield descriptor
        finally:
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    def _try_lock(self) -> int | None:
        descriptor = os.open(self.lock_file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A keeper removes the file with the server: a lock on what was removed locks nothing.
            if os.path.samestat(os.fstat(descriptor), self.lock_file.stat()):
                return descriptor
        except (BlockingIOError, FileNotFoundError):
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    def read(self) -> ShareRecord | None:
        """The record, if it can be read; whether its process lives is another question."""
        try:
            values = json.loads(self.record_file.read_text(encoding="utf-8"))
            pid, started, spec = values["pid"], values["started"], values["spec"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if type(pid) is int and isinstance(started, str) and isinstance(spec, str):
            return ShareRecord(pid, started, spec)
        return None

    def write(self, record: ShareRecord) -> None:
        _records.write_atomically(self.record_file, json.dumps(asdict(record)))

    def exit_of(self, pid: int) -> tuple[int, str] | None:
        """Exit status and last output of a process that failed, once its keeper has written them."""
        try:
            values = json.loads(self.exit_file(pid).read_text(encoding="utf-8"))
            return int(values["exit_code"]), str(values["tail"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def log_tail(self) -> str:
        """The last of what the server wrote."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(self.log.stat().st_size - _TAIL_BYTES, 0))
                return file.read(_TAIL_BYTES).decode("utf-8", errors="replace").strip()
        except OSError:
            return ""

    def tidy_folder(self) -> None:
        """Remove what dead servers left behind. To be called under this place's lock."""
        horizon = time.time() - _ABANDONED
        digests = set()
        for path in self.folder.iterdir():
            digest, dot, suffix = path.name.partition(".")
            if not dot:
                continue
            if suffix.endswith((".exit", ".exit.new")):
                with contextlib.suppress(OSError):
                    if path.stat().st_mtime < horizon:
                        path.unlink()
            else:
                digests.add(digest)
        for digest in digests - {self.digest}:
            _Neighbour(digest).tidy(horizon)


class _Neighbour(Place):
    def tidy(self, horizon: float) -> None:
        record = self.read()
        if record is not None and record.alive:
            return
        with contextlib.suppress(OSError):
            if self.log.exists() and self.log.stat().st_mtime >= horizon:
                return
        descriptor = self._try_lock()
        if descriptor is None:
            return  # somebody is at it
        try:
            record = self.read()
            if record is None or not record.alive:
                for suffix in (*_SUFFIXES, ".lock"):
                    self._file(suffix).unlink(missing_ok=True)
        finally:
            os.close(descriptor)


def shared_key() -> str:
    """The key of this user's shared servers, made when it is first needed."""
    path = _rundir.subfolder(_FOLDER) / _KEY
    for _ in range(2):
        key = read_key()
        if key is not None:
            return key
        draft = path.with_name(f".{_KEY}.{os.getpid()}.{time.monotonic_ns()}")
        _records.write_atomically(draft, secrets.token_urlsafe(32))
        try:
            os.link(draft, path)  # unlike a rename it never replaces the key of a quicker process
        except FileExistsError:
            pass
        finally:
            draft.unlink(missing_ok=True)
    raise MlxcelServerError(f"{path} holds no usable key: remove it (it is made anew), and start again")


def read_key() -> str | None:
    """The key, or None when there is none."""
    try:
        key = (_rundir.run_folder() / _FOLDER / _KEY).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return None
    return key if len(key) >= 32 and key.isprintable() else None
