"""Ending a blocking call from another thread: what cancelling is to a task.

A thread that waits on a socket can only be woken through that socket. So the
connections of ours (see `_network`) tell the interrupt of their thread which
one they wait on, for as long as they do.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Interrupt", "InterruptedCallError", "breakable", "current", "sleep"]

T = TypeVar("T")


class InterruptedCallError(BaseException):
    """The call was ended by another thread; like a cancelled task's, no `except Exception` takes it."""


class Interrupt:
    """Ends the waits of one thread, the present one and all that follow."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._struck = threading.Event()
        self._waits_on: socket.socket | None = None

    @property
    def struck(self) -> bool:
        """Whether it was."""
        return self._struck.is_set()

    def strike(self) -> None:
        """End them. The server sees the connection close, and stops generating."""
        self._struck.set()
        with self._lock:
            if self._waits_on is not None:
                with contextlib.suppress(OSError):  # it is closed already
                    # Not SSLSocket's own, which takes the socket apart under the thread that reads from it.
                    socket.socket.shutdown(self._waits_on, socket.SHUT_RDWR)

    def wait_on(self, connection: socket.socket, operation: Callable[..., T], *arguments: Any) -> T:
        """Run a blocking operation of a socket. Raises InterruptedCallError once it was struck."""
        with self._lock:
            self._check()
            self._waits_on = connection
        try:
            return operation(*arguments)
        finally:
            with self._lock:
                self._waits_on = None
            self._check()

    def sleep(self, seconds: float) -> None:
        """Wait so long. Raises InterruptedCallError once it was struck."""
        self._struck.wait(seconds)
        self._check()

    def _check(self) -> None:
        if self._struck.is_set():
            raise InterruptedCallError


current: ContextVar[Interrupt | None] = ContextVar("mlxcel-interrupt", default=None)
"""What can end the blocking calls of this thread; None where nobody wants to."""


def breakable(connection: socket.socket, operation: Callable[..., T], *arguments: Any) -> T:
    """Run a blocking operation of a socket so that the thread's interrupt can end it."""
    interrupt = current.get()
    return (
        operation(*arguments) if interrupt is None else interrupt.wait_on(connection, operation, *arguments)
    )


def sleep(seconds: float) -> None:
    """Wait so long, or until the thread's interrupt strikes."""
    interrupt = current.get()
    if interrupt is None:
        time.sleep(seconds)
    else:
        interrupt.sleep(seconds)
