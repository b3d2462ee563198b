"""The answers of a `Chat` as they are written."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from .results import Result
    from .streams import AsyncTextStream, TextStream

__all__ = ["AsyncChatStream", "ChatStream"]


class ChatStream(Iterator[str]):
    """Pieces of an answer, which the conversation takes at its end. Leaving it early leaves the turn out."""

    def __init__(self, stream: TextStream, keep: Callable[[Result], None]) -> None:
        self._stream = stream
        self._keep: Callable[[Result], None] | None = keep

    def __next__(self) -> str:
        try:
            return next(self._stream)
        except StopIteration:
            self._kept()
            raise

    def result(self) -> Result:
        """Read what is left and return the whole answer."""
        self._stream.result()
        return self._kept()

    @property
    def text(self) -> str:
        """The text so far."""
        return self._stream.text

    def close(self) -> None:
        """Stop the generation, if it still runs."""
        self._stream.close()

    def _kept(self) -> Result:
        result: Result = self._stream.result()
        if (keep := self._keep) is not None:
            self._keep = None
            keep(result)
        return result

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class AsyncChatStream(AsyncIterator[str]):
    """The async twin of `ChatStream`. The request is sent when it is entered or first iterated."""

    def __init__(
        self, begin: Callable[[], Awaitable[AsyncTextStream]], keep: Callable[[Result], None]
    ) -> None:
        self._begin = begin
        self._stream: AsyncTextStream | None = None
        self._keep: Callable[[Result], None] | None = keep

    async def __anext__(self) -> str:
        stream = await self._begun()
        try:
            return await anext(stream)
        except StopAsyncIteration:
            await self._kept()
            raise

    async def result(self) -> Result:
        """Read what is left and return the whole answer."""
        await (await self._begun()).result()
        return await self._kept()

    @property
    def text(self) -> str:
        """The text so far."""
        return "" if self._stream is None else self._stream.text

    async def close(self) -> None:
        """Stop the generation, if it still runs."""
        if self._stream is not None:
            await self._stream.close()

    async def _begun(self) -> AsyncTextStream:
        if self._stream is None:
            self._stream = await self._begin()
        return self._stream

    async def _kept(self) -> Result:
        result: Result = await (await self._begun()).result()
        if (keep := self._keep) is not None:
            self._keep = None
            keep(result)
        return result

    async def __aenter__(self) -> Self:
        await (await self._begun()).__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
