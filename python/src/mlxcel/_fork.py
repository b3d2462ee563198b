"""What a forked child does with its parent's descriptors: lets go of them.

Python's descriptors close on exec, but a child that only forks (`os.fork`,
`multiprocessing` with its fork method) inherits them all: it would hold a
lifeline open after its owner's death, read from an output pipe of its parent's,
or keep a connection open that the parent closed to cancel a generation.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from typing import Any, Protocol

__all__ = ["close_in_child", "note"]


class _Closable(Protocol):
    def close(self) -> None: ...


_to_close: weakref.WeakSet[_Closable] = weakref.WeakSet()
_connections: weakref.WeakSet[Any] = weakref.WeakSet()  # of things with a fileno()


def close_in_child(descriptor: _Closable) -> None:
    """Close this file or socket object in every forked child, from whichever thread it forks."""
    _to_close.add(descriptor)


def note(stream: Any) -> None:
    """Remember a new network stream of httpcore's, whose socket a child must not keep.

    It is pointed elsewhere, not closed: whatever still holds such a number would
    later close somebody else's file.
    """
    socket = stream.get_extra_info("socket")
    with contextlib.suppress(TypeError):  # uvloop's sockets cannot be referred to weakly
        _connections.add(socket)


def _close_all() -> None:
    for descriptor in list(_to_close):
        # A child that starts with an error would be worse than one descriptor too many.
        with contextlib.suppress(OSError):
            descriptor.close()


def _let_go() -> None:
    sockets = [socket for socket in list(_connections) if socket.fileno() >= 0]
    _connections.clear()
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
    os.register_at_fork(after_in_child=_close_all)
    os.register_at_fork(after_in_child=_let_go)
