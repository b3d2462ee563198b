"""Answers as they are written: iterators of text or of events, with the whole result at their end."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Self

from ._boundary import Explained, boundary
from ._reading import Reading
from ._waiting import close, closer_in_this_loop, waiting
from .events import Event, TextDelta

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from types import TracebackType

    from openai import AsyncStream, Stream
    from typing_extensions import TypeVar

    from ._deadline import Deadline
    from ._generation import Generation
    from .results import Result

    ItemT = TypeVar("ItemT")
    T = TypeVar("T", default=Any)
else:
    from typing import TypeVar

    ItemT = TypeVar("ItemT")
    T = TypeVar("T")

__all__ = ["AsyncEventStream", "AsyncTextStream", "EventStream", "TextStream"]


class _Texts(Reading[str, T]):
    def _items(self, events: list[Event]) -> Iterable[str]:
        text = "".join(event.text for event in events if isinstance(event, TextDelta) and not event.choice)
        return (text,) if text else ()


class _Events(Reading[Event, T]):
    def _items(self, events: list[Event]) -> Iterable[Event]:
        return events


class _Blocking(Reading[ItemT, T], Iterator[ItemT]):
    def __init__(self, source: Stream[Any], asked: Generation, deadline: Deadline, where: str) -> None:
        super().__init__(asked)
        self._source = source
        self._deadline = deadline
        self._where = where
        self._closed = False

    @boundary
    def __next__(self) -> ItemT:
        try:
            if not self._waiting and not self._closed:
                with Explained(self._deadline, self._where, self._text_so_far), self._deadline:
                    self._read()
        except BaseException:
            self.close()
            raise
        if self._waiting:
            return self._waiting.popleft()
        self._tell_fault()
        raise StopIteration

    def _read(self) -> None:
        """Read until there is something to give, or all is read."""
        while not self._waiting:
            self._deadline.check()
            chunk = next(self._source, None)
            if chunk is None:
                self._end()
                self._release()
                return
            self._add(chunk)
            if self._accumulator.moved:
                self._deadline.token()

    def partials(self) -> Iterator[T]:
        """What of the `response_format` there is, each time there is more of it; the whole at the end.

        The last one is the `parsed` of the result. An answer that is something else raises its
        MlxcelFormatError.
        """
        shown: object = None
        for _ in self:
            if (partial := self.partial) is not None and partial != shown:
                shown = partial
                yield partial
        whole = self.result().parsed
        if whole != shown:
            yield whole

    @boundary
    def result(self) -> Result[T]:
        """Read what is left and return the whole answer.

        Raises MlxcelFormatError when it is not what `response_format` asked for.
        """
        while self._result is None and not self._closed:
            next(self, None)
        self._drop()
        return self._whole()

    def close(self) -> None:
        """Stop the generation, if it still runs."""
        self._drop()
        self._release()

    def _release(self) -> None:
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


class TextStream(_Texts[T], _Blocking[str, T]):
    """Pieces of text of the first choice, as they arrive.

    Closing it, leaving its `with` block or dropping it closes the HTTP
    response, and the server stops generating.
    """


class EventStream(_Events[T], _Blocking[Event, T]):
    """Everything of all choices, as it arrives: see `mlxcel.events`. Otherwise a `TextStream`."""


class _Awaited(Reading[ItemT, T], AsyncIterator[ItemT]):
    def __init__(
        self,
        begin: Callable[[], Awaitable[Deadline]],
        open_source: Callable[[Deadline], Awaitable[AsyncStream[Any]]],
        asked: Generation,
        where: Callable[[], str],
    ) -> None:
        super().__init__(asked)
        self._begin = begin
        self._open_source = open_source
        self._source: AsyncStream[Any] | None = None
        self._deadline: Deadline | None = None
        self._close_later: Callable[[AsyncStream[Any]], None] | None = None
        self._where = where
        self._closed = False

    @boundary
    async def __anext__(self) -> ItemT:
        try:
            if not self._waiting and not self._closed:
                deadline = await self._running()
                with (
                    Explained(deadline, self._where(), self._text_so_far),
                    deadline,
                    waiting(deadline) as moved,
                ):
                    await self._read(deadline, moved)
        except BaseException:
            await self.close()
            raise
        if self._waiting:
            return self._waiting.popleft()
        self._tell_fault()
        raise StopAsyncIteration

    async def _read(self, deadline: Deadline, moved: Callable[[], None]) -> None:
        """Read until there is something to give, or all is read."""
        source = await self._opened(deadline)
        while not self._waiting:
            deadline.check()
            chunk = await anext(source, None)
            if chunk is None:
                self._end()
                await self._release()
                return
            self._add(chunk)
            if self._accumulator.moved:
                deadline.token()
                moved()

    async def partials(self) -> AsyncIterator[T]:
        """What of the `response_format` there is, each time there is more of it; the whole at the end.

        The last one is the `parsed` of the result. An answer that is something else raises its
        MlxcelFormatError.
        """
        shown: object = None
        async for _ in self:
            if (partial := self.partial) is not None and partial != shown:
                shown = partial
                yield partial
        whole = (await self.result()).parsed
        if whole != shown:
            yield whole

    @boundary
    async def result(self) -> Result[T]:
        """Read what is left and return the whole answer.

        Raises MlxcelFormatError when it is not what `response_format` asked for.
        """
        while self._result is None and not self._closed:
            await anext(self, None)
        self._drop()
        return self._whole()

    async def close(self) -> None:
        """Stop the generation, if it still runs."""
        self._drop()
        await self._release()

    async def _release(self) -> None:
        if not self._closed:
            self._closed = True
            if self._source is not None:
                await close(self._source)

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

    async def _running(self) -> Deadline:
        """The limits of the call, which run from its first use."""
        if self._deadline is None:
            self._deadline = await self._begin()
        return self._deadline

    async def _opened(self, deadline: Deadline) -> AsyncStream[Any]:
        if self._source is None:
            self._close_later = closer_in_this_loop()
            self._source = await self._open_source(deadline)
        return self._source

    def __del__(self) -> None:
        # The SDK's stream is a reference cycle: left alone it would generate until the next collection.
        if getattr(self, "_closed", True) or self._source is None or self._close_later is None:
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed, and its connections with it
            self._close_later(self._source)


class AsyncTextStream(_Texts[T], _Awaited[str, T]):
    """The async twin of `TextStream`. The request is sent when it is entered or first iterated.

    Leaving it by `break` or dropping it closes the response too, one turn of
    the event loop later.
    """


class AsyncEventStream(_Events[T], _Awaited[Event, T]):
    """The async twin of `EventStream`; otherwise an `AsyncTextStream`."""
