"""Descriptors that a forked child must not keep.

Python's descriptors close on exec, but a child that only forks (`os.fork`,
`multiprocessing` with its fork method) inherits them all: it would hold a
lifeline open after its owner's death, and an output pipe that nobody reads.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from typing import Protocol

__all__ = ["close_in_child"]


class _Closable(Protocol):
    def close(self) -> None: ...


_open: weakref.WeakSet[_Closable] = weakref.WeakSet()


def close_in_child(descriptor: _Closable) -> None:
    """Close this file or socket object in every forked child, from whichever thread it forks."""
    _open.add(descriptor)


def _close_all() -> None:
    for descriptor in list(_open):
        # A child that starts with an error would be worse than one descriptor too many.
        with contextlib.suppress(OSError):
            descriptor.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_all)
