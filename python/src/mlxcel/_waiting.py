"""Deadlines and late closing in whichever event loop this is.

asyncio and anyio are imported when they are needed: the blocking client starts
its server without them.
"""

from __future__ import annotations

import contextlib
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from ._deadline import DeadlinePassedError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

    from openai import AsyncStream

    from ._deadline import Deadline

__all__ = ["close", "closer_in_this_loop", "sleep", "waiting"]


@contextlib.contextmanager
def waiting(deadline: Deadline) -> Iterator[Callable[[], None]]:
    """Cancel what is awaited inside when the deadline passes: DeadlinePassedError.

    Gives a function to call when the deadline was moved.
    """
    import anyio

    left = deadline.left()
    if left is None:
        yield _nothing_moves
        return
    with anyio.move_on_after(left) as scope:

        def moved() -> None:
            scope.deadline = anyio.current_time() + _seconds(deadline.left())

        yield moved
    if scope.cancelled_caught:
        raise DeadlinePassedError


async def close(stream: AsyncStream[Any]) -> None:
    """Close a stream, also in a task that is being cancelled."""
    import anyio

    with anyio.CancelScope(shield=True):
        await stream.close()


async def sleep(seconds: float) -> None:
    """Let other tasks run for so long."""
    import anyio

    await anyio.sleep(seconds)


def closer_in_this_loop() -> Callable[[AsyncStream[Any]], None] | None:
    """A function that closes a stream soon, callable from any thread (the collector may run in each)."""
    import asyncio

    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return _closer_in_trio()
    return partial(_close_in_asyncio, loop)


def _close_in_asyncio(loop: asyncio.AbstractEventLoop, stream: AsyncStream[Any]) -> None:
    loop.call_soon_threadsafe(_start_closing, loop, stream)


_closing: set[asyncio.Task[None]] = set()  # a loop holds its tasks weakly


def _start_closing(loop: asyncio.AbstractEventLoop, stream: AsyncStream[Any]) -> None:
    task = loop.create_task(_quietly(stream))
    _closing.add(task)
    task.add_done_callback(_closing.discard)


def _closer_in_trio() -> Callable[[AsyncStream[Any]], None] | None:
    trio: Any = sys.modules.get("trio")
    if trio is None:
        return None
    token = trio.lowlevel.current_trio_token()

    def close_soon(stream: AsyncStream[Any]) -> None:
        # Its RunFinishedError is a RuntimeError, as asyncio's is for a closed loop.
        token.run_sync_soon(partial(trio.lowlevel.spawn_system_task, _quietly, stream))

    return close_soon


async def _quietly(stream: AsyncStream[Any]) -> None:
    with contextlib.suppress(Exception):  # nobody is left to tell; in a trio system task it would end the run
        await stream.close()


def _nothing_moves() -> None:
    pass


def _seconds(left: float | None) -> float:
    return float("inf") if left is None else left
