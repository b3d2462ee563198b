"""Tells one process from another that was given the same pid later."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

__all__ = ["is_same", "start_token"]

_STATE, _STARTED = 0, 19  # fields of /proc/<pid>/stat after the name (proc(5) numbers them 3 and 22)


def start_token(pid: int) -> str | None:
    """When a process started, as an opaque text; None when it does not run (a zombie does not).

    On Linux the kernel's own count of ticks and the boot it counts from:
    unlike a time of day it does not move when the clock is set.
    """
    if pid <= 0:
        return None
    if sys.platform == "linux":
        return _linux_token(pid)
    return _psutil_token(pid)


def is_same(pid: int, token: str | None) -> bool:
    """Whether the process that had this pid and this start still runs."""
    return token is not None and start_token(pid) == token


def _linux_token(pid: int) -> str | None:
    try:
        # The name, in parentheses, may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    if len(fields) <= _STARTED or fields[_STATE] in ("Z", "X"):
        return None
    return f"{_boot()}:{fields[_STARTED]}"


@functools.cache
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown-boot"


def _psutil_token(pid: int) -> str | None:
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return f"{process.create_time():.3f}"
    except psutil.AccessDenied:
        return "somebody else's"  # it runs, and is none of ours: equal to no token we wrote
    except psutil.Error:
        return None
