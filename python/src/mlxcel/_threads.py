"""Blocking calls side by side, in threads of their own. Knows nothing of what they do."""

from __future__ import annotations

import threading
import time
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Generic, TypeVar

from . import _interrupt

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

__all__ = ["WINDOW", "Crew", "each", "in_order"]

JobT = TypeVar("JobT")
T = TypeVar("T")

_AHEAD = 2
"""Jobs fed for each thread: one that it works on, and one that it finds when it is done."""
WINDOW = 8
"""Jobs for each thread between the first whose outcome was not taken yet and the last that was fed."""
_GRACE = 1.0
"""Seconds to wait for threads that were interrupted. One that cannot be ends by itself when its call does."""


class Crew(Generic[JobT, T]):
    """Up to `size` threads that work off the jobs they are fed; outcomes come as they are ready."""

    def __init__(self, work: Callable[[JobT], T], size: int) -> None:
        self._work = work
        self._size = size
        self._jobs: SimpleQueue[tuple[int, JobT] | None] = SimpleQueue()
        self._outcomes: SimpleQueue[tuple[int, T | BaseException]] = SimpleQueue()
        self._threads: list[tuple[threading.Thread, _interrupt.Interrupt]] = []
        self.running = 0
        """Jobs whose outcome was not taken yet."""

    @property
    def has_room(self) -> bool:
        """Whether a further job would keep a thread from waiting."""
        return self.running < _AHEAD * self._size

    @property
    def window(self) -> int:
        """How far a job may be ahead of the first that was not given out."""
        return WINDOW * self._size

    def feed(self, index: int, job: JobT) -> None:
        """Add a job."""
        self.running += 1
        self._jobs.put((index, job))
        if len(self._threads) < min(self.running, self._size):
            interrupt = _interrupt.Interrupt()
            thread = threading.Thread(target=self._run, args=(interrupt,), name="mlxcel-many", daemon=True)
            self._threads.append((thread, interrupt))
            thread.start()

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
        """Interrupt what runs, forget what waits."""
        for _, interrupt in self._threads:
            interrupt.strike()
        for _ in self._threads:
            self._jobs.put(None)
        end = time.monotonic() + _GRACE
        for thread, _ in self._threads:
            thread.join(max(end - time.monotonic(), 0))

    def _run(self, interrupt: _interrupt.Interrupt) -> None:
        _interrupt.current.set(interrupt)
        while (fed := self._jobs.get()) is not None and not interrupt.struck:
            index, job = fed
            outcome: T | BaseException
            try:
                outcome = self._work(job)
            except _interrupt.InterruptedCallError:
                return
            except BaseException as error:  # noqa: BLE001 - carried to whoever takes it
                outcome = error
            self._outcomes.put((index, outcome))
            del fed, job, outcome  # not kept while the next one is waited for


def each(work: Callable[[JobT], T], jobs: Iterable[JobT], size: int) -> Generator[tuple[int, T | Exception]]:
    """Outcomes of jobs with their indices, as they are ready. Closing it ends what runs."""
    crew = Crew(work, size)
    try:
        for index, job in enumerate(jobs):
            if not crew.has_room and (outcome := crew.take()) is not None:
                yield outcome
            crew.feed(index, job)
        while crew.running and (outcome := crew.take()) is not None:
            yield outcome
    finally:
        crew.stop()


def in_order(work: Callable[[JobT], T], jobs: Iterator[JobT], size: int) -> Generator[T | Exception]:
    """Outcomes in the order of the jobs, which are read ahead in this thread as far as `Crew.window`."""
    crew = Crew(work, size)
    ready: dict[int, T | Exception] = {}
    fed = given = 0
    more = True
    try:
        while more or crew.running or ready:
            # Also when the next outcome lies ready: the threads must not run dry while those are taken.
            while more and crew.has_room and fed - given < crew.window:
                try:
                    job = next(jobs)
                except StopIteration:
                    more = False
                    break
                crew.feed(fed, job)
                fed += 1
                _collect(crew, ready)
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


def _collect(crew: Crew[JobT, T], ready: dict[int, T | Exception]) -> None:
    while (outcome := crew.take(wait=False)) is not None:
        ready[outcome[0]] = outcome[1]
