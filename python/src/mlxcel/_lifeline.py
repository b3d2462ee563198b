"""A pipe by which a server notices that its owner is gone.

The owner holds the write end and never writes. The kernel closes it however
the owner ends, and the server, which holds the read end, sees the end of file.
A forked child of the owner can keep the pipe open past its death; so the server
also gets the owner's process id, and ends when its parent is another.
"""

from __future__ import annotations

import os

from ._descriptors import above_standard
from ._fork import close_in_child

__all__ = ["LIFELINE", "Lifeline"]

LIFELINE = "MLXCEL_LIFELINE"
"""Variable that names the pipe and the owner. A variable, because a binary that
does not know it ignores it, while it would refuse a flag."""


class Lifeline:
    """Both ends of the pipe, until the server is spawned; then the write end alone."""

    def __init__(self) -> None:
        self._read, write = map(above_standard, os.pipe())
        self._write = os.fdopen(write, "wb", buffering=0)
        close_in_child(self._write)

    @property
    def descriptor(self) -> int:
        """The read end, for the server."""
        return self._read

    @property
    def value(self) -> str:
        """What the variable says: `fd:owner`."""
        return f"{self._read}:{os.getpid()}"

    def spawned(self) -> None:
        """Close the read end here: the server has its own now, or there is none."""
        if self._read >= 0:
            os.close(self._read)
            self._read = -1

    def close(self) -> None:
        """Let go: a server that still runs ends itself."""
        self.spawned()
        self._write.close()
