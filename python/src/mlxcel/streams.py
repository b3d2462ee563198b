"""Answers as they are written: iterators of text with the whole result at their end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Self

from ._responses import readable
from .errors import MlxcelStateError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from openai import AsyncStream, Stream

    from ._accumulate import Accumulator
    from .results import Result

__all__ = ["AsyncTextStream", "TextStream"]

_CLOSED = "the stream was closed before its end, so it has no result; text so far is in .text"


class TextStream(Iterator[str]):
    """Pieces of text of the first choice, as they arrive.

    Closing it, leaving its `with` block or dropping it closes the HTTP
    response, and the server stops generating.
    """

    def __init__(self, source: Stream[Any], accumulator: Accumulator) -> None:
        self._source = source
        self._accumulator = accumulator
        self._result: Result | None = None
        self._closed = False

    def __next__(self) -> str:
        if self._closed:
            raise StopIteration
        try:
            with readable():
                while (chunk := next(self._source, None)) is not None:
                    if text := self._accumulator.add(chunk):
                        return text
            self._result = self._accumulator.result()
        except BaseException:
            self.close()
            raise
        self.close()
        raise StopIteration

    @property
    def text(self) -> str:
        """All text so far."""
        return self._accumulator.text

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
    the asyncio loop later; under trio use `async with`, which closes at once.
    """

    def __init__(
        self, open_source: Callable[[], Awaitable[AsyncStream[Any]]], accumulator: Accumulator
    ) -> None:
        self._open_source = open_source
        self._source: AsyncStream[Any] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._accumulator = accumulator
        self._result: Result | None = None
        self._closed = False

    async def __anext__(self) -> str:
        if self._closed:
            raise StopAsyncIteration
        try:
            source = await self._opened()
            with readable():
                while (chunk := await anext(source, None)) is not None:
                    if text := self._accumulator.add(chunk):
                        return text
            self._result = self._accumulator.result()
        except BaseException:
            await self.close()
            raise
        await self.close()
        raise StopAsyncIteration

    @property
    def text(self) -> str:
        """All text so far."""
        return self._accumulator.text

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
                await self._source.close()

    async def __aenter__(self) -> Self:
        await self._opened()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _opened(self) -> AsyncStream[Any]:
        if self._source is None:
            self._source = await self._open_source()
            with contextlib.suppress(RuntimeError):  # not asyncio
                self._loop = asyncio.get_running_loop()
        return self._source

    def __del__(self) -> None:
        # The SDK's stream is a reference cycle: left alone it would generate until the next collection.
        if getattr(self, "_closed", True) or self._source is None or self._loop is None:
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed, and its connections with it
            self._loop.call_soon_threadsafe(_close_soon, self._loop, self._source)


_closing: set[asyncio.Task[None]] = set()  # a loop holds its tasks weakly


def _close_soon(loop: asyncio.AbstractEventLoop, source: AsyncStream[Any]) -> None:
    task = loop.create_task(source.close())
    _closing.add(task)
    task.add_done_callback(_closing.discard)
