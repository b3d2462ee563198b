"""Whether a process works, seen from outside.

For servers that tell nothing while they load: an older binary opens its
listener only afterwards, and a download of an hour must not look like a hang.
"""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Self

__all__ = ["Activity"]

_CPU_SHARE = 0.02  # of one core: less than a load or a download takes, more than a process that waits
_CPU_LEAST = 0.05  # seconds; the kernel counts in hundredths
_IO_LEAST = 1 << 16  # bytes
_TICK = 100  # Linux shows times to programs in hundredths of a second (USER_HZ)
_PS_SECONDS = 5.0
_CLOCK = re.compile(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+(?:[.,]\d+)?)$")


@dataclass(frozen=True, slots=True)
class Activity:
    """What a process has done since its start: seconds of CPU, bytes read and written, bytes of output."""

    cpu: float = 0.0
    io: int = 0
    output: int = 0

    @classmethod
    def of(cls, pid: int, output: int) -> Self:
        """What can be seen of it now; zeros for what cannot (it may have ended)."""
        if sys.platform == "linux":
            return cls(_linux_cpu(pid), _linux_io(pid), output)
        return cls(_ps_cpu(pid), 0, output)

    def advanced(self, since: Activity, seconds: float) -> bool:
        """Whether it did more in these `seconds` than a process does that only waits."""
        return (
            self.output > since.output
            or self.io - since.io >= _IO_LEAST
            or self.cpu - since.cpu >= max(_CPU_SHARE * seconds, _CPU_LEAST)
        )


def _linux_cpu(pid: int) -> float:
    try:
        # The name, in parentheses, may hold anything. proc(5) numbers utime 14 and stime 15.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICK
    except (OSError, ValueError, IndexError):
        return 0.0


def _linux_io(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/io").read_text().splitlines()
        counts = dict(line.split(": ", 1) for line in lines)
        return int(counts["rchar"]) + int(counts["wchar"])
    except (OSError, ValueError, KeyError):
        return 0


def _ps_cpu(pid: int) -> float:
    try:
        done = subprocess.run(
            ["/bin/ps", "-o", "time=", "-p", str(pid)],
            capture_output=True,
            text=True,
            timeout=_PS_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0.0
    return clock_seconds(done.stdout.strip())


def clock_seconds(text: str) -> float:
    """The seconds of `ps`'s `[[days-]hours:]minutes:seconds`; 0 for anything else."""
    match = _CLOCK.match(text)
    if match is None:
        return 0.0
    days, hours, minutes, seconds = match.groups()
    return (
        int(days or 0) * 86400 + int(hours or 0) * 3600 + int(minutes) * 60 + float(seconds.replace(",", "."))
    )
