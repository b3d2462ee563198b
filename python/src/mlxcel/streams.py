"""Answers as they are written: iterators of text with the whole result at their end."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Self

from ._boundary import Explained, boundary
from ._waiting import close, closer_in_this_loop, waiting
from .errors import MlxcelStateError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from openai import AsyncStream, Stream

    from ._accumulate import Accumulator
    from ._deadline import Deadline
    from .results import Result

__all__ = ["AsyncTextStream", "TextStream"]

_CLOSED = "the stream was closed before its end, so it has no result; text so far is in .text"


class TextStream(Iterator[str]):
    """Pieces of text of the first choice, as they arrive.

    Closing it, leaving its `with` block or dropping it closes the HTTP
    response, and the server stops generating.
    """

    def __init__(self, source: Stream[Any], accumulator: Accumulator, deadline: Deadline, where: str) -> None:
        self._source = source
        self._accumulator = accumulator
        self._deadline = deadline
        self._where = where
        self._result: Result | None = None
        self._closed = False

    @boundary
    def __next__(self) -> str:
        if self._closed:
            raise StopIteration
        try:
            with Explained(self._deadline, self._where, self._text_so_far), self._deadline:
                if (text := self._next_text()) is not None:
                    return text
                self._result = self._accumulator.result()
        except BaseException:
            self.close()
            raise
        self.close()
        raise StopIteration

    def _next_text(self) -> str | None:
        while True:
            self._deadline.check()
            chunk = next(self._source, None)
            if chunk is None:
                return None
            text = self._accumulator.add(chunk)
            if self._accumulator.moved:
                self._deadline.token()
            if text:
                return text

    def _text_so_far(self) -> str:
        return self._accumulator.text

    @property
    def text(self) -> str:
        """All text so far."""
        return self._accumulator.text

    @boundary
    def result(self) -> Result:
        """Read what is left and return the whole answer."""
        for _ in self:
            pass
        if self._result is None:
            raise MlxcelStateError(_CLOSED)
        return self._result

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


class AsyncTextStream(AsyncIterator[str]):
    """The async twin of `TextStream`. The request is sent when it is entered or first iterated.

    Leaving it by `break` or dropping it closes the response too, one turn of
    the event loop later.
    """

    def __init__(
        self,
        begin: Callable[[], Awaitable[Deadline]],
        open_source: Callable[[Deadline], Awaitable[AsyncStream[Any]]],
        accumulator: Accumulator,
        where: Callable[[], str],
    ) -> None:
        self._begin = begin
        self._open_source = open_source
        self._source: AsyncStream[Any] | None = None
        self._deadline: Deadline | None = None
        self._close_later: Callable[[AsyncStream[Any]], None] | None = None
        self._accumulator = accumulator
        self._where = where
        self._result: Result | None = None
        self._closed = False

    @boundary
    async def __anext__(self) -> str:
        if self._closed:
            raise StopAsyncIteration
        try:
            deadline = await self._running()
            with (
                Explained(deadline, self._where(), self._text_so_far),
                deadline,
                waiting(deadline) as moved,
            ):
                if (text := await self._next_text(deadline, moved)) is not None:
                    return text
                self._result = self._accumulator.result()
        except BaseException:
            await self.close()
            raise
        await self.close()
        raise StopAsyncIteration

    async def _next_text(self, deadline: Deadline, moved: Callable[[], None]) -> str | None:
        source = await self._opened(deadline)
        while True:
            deadline.check()
            chunk = await anext(source, None)
            if chunk is None:
                return None
            text = self._accumulator.add(chunk)
            if self._accumulator.moved:
                deadline.token()
                moved()
            if text:
                return text

    def _text_so_far(self) -> str:
        return self._accumulator.text

    @property
    def text(self) -> str:
        """All text so far."""
        return self._accumulator.text

    @boundary
    async def result(self) -> Result:
        """Read what is left and return the whole answer."""
        async for _ in self:
            pass
        if self._result is None:
            raise MlxcelStateError(_CLOSED)
        return self._result

    async def close(self) -> None:
        """Stop the generation, if it still runs."""
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
