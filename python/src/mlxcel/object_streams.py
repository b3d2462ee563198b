"""Streams of events as the server sends them, for the routes whose events are not those of chat."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Self, TypeVar

from ._boundary import Explained, boundary
from ._waiting import close, closer_in_this_loop, waiting

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from openai import AsyncStream, Stream

    from ._deadline import Deadline

__all__ = ["AsyncObjectStream", "ObjectStream"]

T = TypeVar("T")


class ObjectStream(Iterator[T]):
    """The events of a response, each as it arrives; a context manager. Closing it ends the generation."""

    def __init__(self, source: Stream[Any], deadline: Deadline, where: str) -> None:
        self._source = source
        self._deadline = deadline
        self._where = where
        self._closed = False

    @boundary
    def __next__(self) -> T:
        if self._closed:
            raise StopIteration
        try:
            with Explained(self._deadline, self._where), self._deadline:
                self._deadline.check()
                event: T = next(self._source)
                self._deadline.token()
        except BaseException:
            self.close()
            raise
        return event

    def close(self) -> None:
        """Stop the generation, if it still runs."""
        if not self._closed:
            self._closed = True
            self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()


class AsyncObjectStream(AsyncIterator[T]):
    """The async twin of `ObjectStream`. The request is sent when it is entered or first iterated."""

    def __init__(
        self,
        begin: Callable[[], Awaitable[Deadline]],
        open_source: Callable[[Deadline], Awaitable[AsyncStream[Any]]],
        where: Callable[[], str],
    ) -> None:
        self._begin = begin
        self._open_source = open_source
        self._where = where
        self._source: AsyncStream[Any] | None = None
        self._deadline: Deadline | None = None
        self._close_later: Callable[[AsyncStream[Any]], None] | None = None
        self._closed = False

    @boundary
    async def __anext__(self) -> T:
        if self._closed:
            raise StopAsyncIteration
        try:
            deadline = await self._running()
            with Explained(deadline, self._where()), deadline, waiting(deadline) as moved:
                source = await self._opened(deadline)
                deadline.check()
                event: T = await anext(source)
                deadline.token()
                moved()
        except BaseException:
            await self.close()
            raise
        return event

    async def close(self) -> None:
        """Stop the generation, if it still runs."""
        if not self._closed:
            self._closed = True
            if self._source is not None:
                await close(self._source)

    async def _running(self) -> Deadline:
        if self._deadline is None:
            self._deadline = await self._begin()
        return self._deadline

    async def _opened(self, deadline: Deadline) -> AsyncStream[Any]:
        if self._source is None:
            self._close_later = closer_in_this_loop()
            self._source = await self._open_source(deadline)
        return self._source

    @boundary
    async def __aenter__(self) -> Self:
        deadline = await self._running()
        try:
            with Explained(deadline, self._where()), deadline, waiting(deadline):
                await self._opened(deadline)
        except BaseException:
            await self.close()  # __aexit__ will not be called
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __del__(self) -> None:
        if getattr(self, "_closed", True) or self._source is None or self._close_later is None:
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed, and its connections with it
            self._close_later(self._source)
