"""What a forked child does with its parent's connections: lets go of them.

As long as a child holds a copy of a connection, closing it in the parent tells
the server nothing, and a generation that the parent cancelled would run on. So
the copies are pointed elsewhere in the child. They are not closed: the objects
of the HTTP library still hold their numbers, and would later close whatever
else the child had opened under them.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from typing import Any, Protocol

__all__ = ["note"]


class _Stream(Protocol):
    def get_extra_info(self, info: str) -> Any: ...


_open: weakref.WeakSet[_Stream] = weakref.WeakSet()


def note(stream: _Stream) -> None:
    """Remember a network stream of httpcore's kind, whose socket a child must not keep."""
    _open.add(stream)


def _let_go() -> None:
    streams = list(_open)
    _open.clear()
    if not streams:
        return
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        for stream in streams:
            # A child that starts with an error would be worse than one descriptor too many.
            with contextlib.suppress(Exception):
                descriptor = stream.get_extra_info("socket").fileno()
                if descriptor >= 0:
                    os.dup2(nothing, descriptor, inheritable=False)
    finally:
        os.close(nothing)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_let_go)
