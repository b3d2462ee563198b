"""`python -m mlxcel stop`: end servers that this package started, and no others."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from . import _identity, _records
from ._process_list import from_command

if TYPE_CHECKING:
    import argparse

    from ._records import Record

__all__ = ["Outcome", "add_arguments", "main", "stop"]

_GRACE = 10.0
_AFTER_KILL = 10.0
_PAUSE = 0.02


@dataclass(frozen=True)
class Outcome:
    """What became of one pid. `stopped` is False for a refusal and for a failure, which `detail` explains."""

    pid: int
    stopped: bool
    detail: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("pid", nargs="*", type=int, default=[], metavar="PID", help="as `ps` shows it")
    which.add_argument("--all", action="store_true", help="every server that this package started for you")
    parser.add_argument(
        "--grace",
        type=_seconds,
        default=_GRACE,
        metavar="SECONDS",
        help="between SIGTERM and SIGKILL (default: %(default)g)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON array for scripts")


def main(options: argparse.Namespace) -> int:
    records = {record.pid: record for record in _records.read_all()}
    pids = list(records) if options.all else list(dict.fromkeys(options.pid))
    outcomes = [
        stop(records[pid], options.grace) if pid in records else Outcome(pid, stopped=False, detail=_why(pid))
        for pid in pids
    ]
    if options.json:
        print(json.dumps([asdict(outcome) for outcome in outcomes], indent=2))
    else:
        for outcome in outcomes:
            print(f"{outcome.pid}: {outcome.detail}", file=sys.stdout if outcome.stopped else sys.stderr)
        if not outcomes:
            print("no server of yours runs")
    return 0 if all(outcome.stopped for outcome in outcomes) else 1


def stop(record: Record, grace: float) -> Outcome:
    """SIGTERM, up to `grace` seconds, SIGKILL; to the process on record and no other."""
    target = _Target(record)
    try:
        if not target.send(signal.SIGTERM):
            return Outcome(record.pid, stopped=True, detail="had ended already")
        if target.ends_within(grace):
            how = "stopped"
        else:
            # Last, because a hard kill can strand wired GPU memory.
            target.send(signal.SIGKILL)
            if not target.ends_within(_AFTER_KILL):
                return Outcome(record.pid, stopped=False, detail="is still there after SIGKILL")
            how = f"killed: it did not end within {grace:g} s of SIGTERM"
    except PermissionError:
        return Outcome(record.pid, stopped=False, detail="you may not signal it")
    finally:
        target.close()
    _records.remove(record.pid)
    return Outcome(record.pid, stopped=True, detail=how + _and_then(record))


class _Target:
    """The process on record. A pidfd, where there are some, makes sure that a signal finds nobody else."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._descriptor: int | None = None
        if hasattr(os, "pidfd_open"):
            try:
                self._descriptor = os.pidfd_open(record.pid)
            except OSError:
                self._descriptor = None  # it is gone, or the kernel is an old one

    def send(self, number: signal.Signals) -> bool:
        """False when it has ended."""
        if not _identity.is_same(self._record.pid, self._record.started):
            return False
        try:
            if self._descriptor is not None:
                signal.pidfd_send_signal(self._descriptor, number)
            else:
                os.kill(self._record.pid, number)
        except ProcessLookupError:
            return False
        return True

    def ends_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while _identity.is_same(self._record.pid, self._record.started):
            if time.monotonic() >= deadline:
                return False
            time.sleep(_PAUSE)
        return True

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)


def _and_then(record: Record) -> str:
    if record.shared:
        return " (who shares it starts another with the next request)"
    if record.owner_alive:
        return f" (process {record.owner_pid}, which owns it, may start another)"
    return ""


def _why(pid: int) -> str:
    """Why a pid that is not on record is not touched."""
    import psutil

    try:
        command = psutil.Process(pid).cmdline()
    except psutil.AccessDenied:
        command = []
    except psutil.Error:
        return "no such process"
    if from_command(pid, command) is None:
        return "not a server: not touched"
    return (
        f"a server, but not one that this package started for you: not touched (`kill {pid}` if you mean it)"
    )


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError(text)
    return value
