"""Awaited calls side by side, in the caller's own event loop. Knows nothing of what they do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

from .errors import MlxcelUnsupportedError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator

__all__ = ["WINDOW", "each", "in_order"]

JobT = TypeVar("JobT")
T = TypeVar("T")

WINDOW = 8
"""Jobs for each call under way, from the first whose outcome was not taken yet to the last that was read."""


async def each(
    work: Callable[[JobT], Awaitable[T]],
    jobs: Iterable[JobT],
    size: int,
    done: Callable[[int, T | Exception], bool],
) -> None:
    """Work off jobs and tell each outcome with its index; nothing new is begun once `done` says True."""
    import anyio

    waiting = iter(enumerate(jobs))
    stopped = False

    async def worker() -> None:
        nonlocal stopped
        for index, job in waiting:
            outcome: T | Exception
            try:
                outcome = await work(job)
            except Exception as error:  # noqa: BLE001 - carried to the caller
                outcome = error
            stopped = done(index, outcome) or stopped
            if stopped:
                return

    async with anyio.create_task_group() as group:
        for _ in range(size):
            group.start_soon(worker)


async def in_order(
    work: Callable[[JobT], Awaitable[T]], jobs: Iterator[JobT] | AsyncIterator[JobT], size: int
) -> AsyncGenerator[T | Exception]:
    """Outcomes in the order of the jobs, which are read ahead. Closing it cancels what runs."""
    run = _Run(work, jobs, size)
    try:
        while await run.advance():
            yield run.give()
    finally:
        await run.stop()


class _Run(Generic[JobT, T]):
    """Tasks for the next jobs of a source, and what came of those that are not given out yet."""

    def __init__(
        self, work: Callable[[JobT], Awaitable[T]], jobs: Iterator[JobT] | AsyncIterator[JobT], size: int
    ) -> None:
        _require_asyncio()
        self._work = work
        self._jobs = jobs
        self._size = size
        self._tasks: set[asyncio.Task[None]] = set()
        self._events: asyncio.Queue[Callable[[], None]] = asyncio.Queue()
        self._ready: dict[int, T | Exception] = {}
        self._fed = self._given = self._running = 0
        self._reading = False
        self._more = True

    async def advance(self) -> bool:
        """Wait for the next outcome; False when all are given out."""
        self._read()
        while self._given not in self._ready:
            if not self._running and not self._reading:
                return False
            (await self._events.get())()
            self._read()
        return True

    def give(self) -> T | Exception:
        outcome = self._ready.pop(self._given)
        self._given += 1
        return outcome

    async def stop(self) -> None:
        """Cancel what runs, and wait until it has ended."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _read(self) -> None:
        while (
            self._more
            and not self._reading
            and self._running < self._size
            and self._fed - self._given < WINDOW * self._size
        ):
            if isinstance(self._jobs, AsyncIterator):
                self._reading = True
                self._start(self._next, self._jobs)  # beside the wait for outcomes, which may take less long
                return
            try:
                self._feed(next(self._jobs))
            except StopIteration:
                self._more = False

    async def _next(self, jobs: AsyncIterator[JobT]) -> None:
        try:
            job = await anext(jobs)
        except StopAsyncIteration:
            self._tell(self._end)
        else:
            self._tell(partial(self._feed, job))

    def _end(self) -> None:
        self._reading = self._more = False

    def _feed(self, job: JobT) -> None:
        self._reading = False
        self._running += 1
        self._start(self._do, self._fed, job)
        self._fed += 1

    async def _do(self, index: int, job: JobT) -> None:
        outcome: T | Exception
        try:
            outcome = await self._work(job)
        except Exception as error:  # noqa: BLE001 - carried to the caller
            outcome = error
        self._tell(partial(self._finish, index, outcome))

    def _finish(self, index: int, outcome: T | Exception) -> None:
        self._running -= 1
        self._ready[index] = outcome

    def _start(self, step: Callable[..., Awaitable[None]], *arguments: object) -> None:
        task = asyncio.create_task(self._told(step, *arguments))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _told(self, step: Callable[..., Awaitable[None]], *arguments: object) -> None:
        try:
            await step(*arguments)
        except BaseException as error:  # noqa: BLE001 - the source's, or a cancellation from within
            self._tell(partial(_raise, error))

    def _tell(self, event: Callable[[], None]) -> None:
        self._events.put_nowait(event)


def _raise(error: BaseException) -> None:
    raise error


def _require_asyncio() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise MlxcelUnsupportedError(
            "an iterator of prompts wants asyncio: under trio give lists of prompts, one after another"
        ) from None
