"""What a forked child does with its parent's connections: lets go of them.

As long as a child holds a copy of a connection, closing it in the parent tells
the server nothing, and a generation that the parent cancelled would run on. So
the copies are pointed elsewhere in the child. They are not closed: whatever
still holds such a number would later close somebody else's file.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from typing import Any

__all__ = ["note"]

_open: weakref.WeakSet[Any] = weakref.WeakSet()  # of things with a fileno()


def note(stream: Any) -> None:
    """Remember a new network stream of httpcore's, whose socket a child must not keep."""
    socket = stream.get_extra_info("socket")
    with contextlib.suppress(TypeError):  # uvloop's sockets cannot be referred to weakly
        _open.add(socket)


def _let_go() -> None:
    sockets = [socket for socket in list(_open) if socket.fileno() >= 0]
    _open.clear()
    if not sockets:
        return
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        for socket in sockets:
            with contextlib.suppress(OSError):  # closed meanwhile
                os.dup2(nothing, socket.fileno(), inheritable=False)
    finally:
        os.close(nothing)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_let_go)
