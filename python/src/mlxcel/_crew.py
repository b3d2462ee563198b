"""Awaited calls side by side, in order, for a caller that blocks. Knows nothing of what they do.

The twin of `_tasks.in_order`. Jobs are read in the caller's thread, where whatever makes them belongs; the
calls run in the loop of a thread beside it, so that they go on while the caller works with an outcome.
"""

from __future__ import annotations

import asyncio
from collections import deque
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Generic, TypeVar

from ._loop_thread import LoopThread
from ._tasks import WINDOW

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterator

__all__ = ["in_order"]

JobT = TypeVar("JobT")
T = TypeVar("T")

_AHEAD = 2
"""Jobs fed for each call under way: one that it is for, and one that follows at once when it is done."""


def in_order(
    work: Callable[[JobT], Awaitable[T]], jobs: Iterator[JobT], size: int
) -> Generator[T | Exception]:
    """Outcomes in the order of the jobs, which are read ahead here. Closing it cancels what runs."""
    crew = _Crew(work, size)
    ready: dict[int, T | Exception] = {}
    fed = given = 0
    more = True
    try:
        while more or crew.running or ready:
            # Also when the next outcome lies ready: the calls must not run dry while those are taken.
            while more and crew.has_room and fed - given < WINDOW * size:
                try:
                    job = next(jobs)
                except StopIteration:
                    more = False
                    break
                crew.feed(fed, job)
                fed += 1
                while (outcome := crew.take(wait=False)) is not None:
                    ready[outcome[0]] = outcome[1]
                if given in ready:
                    break
            while given not in ready and crew.running and (outcome := crew.take()) is not None:
                ready[outcome[0]] = outcome[1]
                if more:
                    break
            if given in ready:
                yield ready.pop(given)
                given += 1
    finally:
        crew.stop()


class _Crew(Generic[JobT, T]):
    """Works off the jobs it is fed, up to `size` at once; outcomes come as they are ready."""

    def __init__(self, work: Callable[[JobT], Awaitable[T]], size: int) -> None:
        self._work = work
        self._size = size
        self._waiting: deque[tuple[int, JobT]] = deque()
        self._outcomes: SimpleQueue[tuple[int, T | BaseException]] = SimpleQueue()
        self._workers: set[asyncio.Task[None]] = set()
        self._working = 0
        self._thread = LoopThread()
        self.running = 0
        """Jobs whose outcome was not taken yet."""

    @property
    def has_room(self) -> bool:
        """Whether a further job would keep the crew from waiting."""
        return self.running < _AHEAD * self._size

    def feed(self, index: int, job: JobT) -> None:
        """Add a job."""
        self.running += 1
        self._thread.soon(self._enter, index, job)

    def take(self, *, wait: bool = True) -> tuple[int, T | Exception] | None:
        """The next outcome; None when there is none and `wait` is off."""
        try:
            index, outcome = self._outcomes.get(block=wait)
        except Empty:
            return None
        self.running -= 1
        if isinstance(outcome, BaseException) and not isinstance(outcome, Exception):
            raise outcome
        return index, outcome

    def stop(self) -> None:
        """Cancel what runs, forget what waits."""
        self._thread.close()

    def _enter(self, index: int, job: JobT) -> None:
        self._waiting.append((index, job))
        if self._working < self._size:
            self._working += 1
            worker = asyncio.get_running_loop().create_task(self._work_off())
            self._workers.add(worker)  # a loop holds its tasks weakly
            worker.add_done_callback(self._workers.discard)

    async def _work_off(self) -> None:
        try:
            while self._waiting:
                await self._do(*self._waiting.popleft())
        finally:
            self._working -= 1

    async def _do(self, index: int, job: JobT) -> None:
        try:
            outcome = await self._work(job)
        except BaseException as error:
            self._outcomes.put((index, error))
            if not isinstance(error, Exception):
                raise
        else:
            self._outcomes.put((index, outcome))
