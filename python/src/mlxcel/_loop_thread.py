"""Awaited calls for a caller that blocks: an event loop in a thread of its own, for as long as they take.

So a blocking client works where a loop runs already (a notebook), and a Ctrl-C in the caller's thread
cancels what runs here.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["NAME", "LoopThread", "in_thread", "run"]

T = TypeVar("T")

NAME = "mlxcel-many"
"""What the threads are called."""
_GRACE = 1.0
"""Seconds to wait for what was cancelled, which may be about to do something that blocks."""


class LoopThread:
    """An event loop that runs until it is closed."""

    def __init__(self) -> None:
        # Not `asyncio.run`, which tools for nested loops replace by one that wants the thread's own loop.
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._loop = self._runner.get_loop()
        # In the caller's context: a notebook finds the cell to print to there.
        self._thread = threading.Thread(
            target=contextvars.copy_context().run, args=(self._serve,), name=NAME, daemon=True
        )
        try:
            self._thread.start()
        except BaseException:
            self._runner.close()
            raise

    def soon(self, function: Callable[..., object], *arguments: object) -> None:
        """Call a function there."""
        self._loop.call_soon_threadsafe(function, *arguments)

    def result_of(self, awaited: Coroutine[Any, Any, T]) -> T:
        """Wait for what is awaited there."""
        return asyncio.run_coroutine_threadsafe(awaited, self._loop).result()

    def close(self) -> None:
        """Cancel what runs there, and wait until it has ended. Safe to call again."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self.soon(self._loop.stop)
        if threading.current_thread() is not self._thread:  # the collector may run in each
            self._thread.join(_GRACE)

    def _serve(self) -> None:
        with self._runner:
            self._loop.run_forever()


def run(awaited: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Await something in a loop of its own. Leaving the wait, as by Ctrl-C, cancels it."""
    with contextlib.closing(LoopThread()) as thread:
        return thread.result_of(awaited())


async def in_thread(function: Callable[..., T], *arguments: object) -> T:
    """Await a blocking call in a thread of its own. When the wait is cancelled it runs on, unseen."""
    outcome: Future[T] = Future()
    outcome.set_running_or_notify_cancel()  # a cancellation ends the wait only

    def call() -> None:
        try:
            outcome.set_result(function(*arguments))
        except BaseException as error:  # noqa: BLE001 - carried to whoever waits
            outcome.set_exception(error)

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(call,), name=NAME, daemon=True).start()
    return await asyncio.wrap_future(outcome)
