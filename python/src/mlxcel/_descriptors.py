"""File descriptors that children inherit."""

from __future__ import annotations

import fcntl
import os

__all__ = ["above_standard"]


def above_standard(descriptor: int) -> int:
    """The same file under a number above 2; `descriptor` is closed if it had another.

    A process whose stdin, stdout or stderr is closed gets their numbers for what it opens next. A child
    could not inherit that: it has its own standard streams there.
    """
    if descriptor > 2:
        return descriptor
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(descriptor)
