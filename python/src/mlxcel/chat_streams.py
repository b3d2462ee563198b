"""The answers of a `Chat` as they are written."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias

from ._boundary import boundary

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from ._tool_run import AsyncRun, BlockingRun
    from .results import Result
    from .tools import ToolRun

__all__ = ["AsyncChatStream", "ChatStream"]

Keep: TypeAlias = "Callable[[Any], None]"


class Texts(Protocol):
    """What a turn is read from: a `TextStream`, or the `ToolTexts` of one with tools."""

    @property
    def text(self) -> str: ...
    def __next__(self) -> str: ...
    def result(self) -> Result: ...
    def close(self) -> None: ...


class AsyncTexts(Protocol):
    """The async twin of `Texts`."""

    @property
    def text(self) -> str: ...
    async def __anext__(self) -> str: ...
    async def __aenter__(self) -> object: ...
    async def result(self) -> Result: ...
    async def close(self) -> None: ...


class ChatStream(Iterator[str]):
    """Pieces of an answer, which the conversation takes at its end. Leaving it early leaves the turn out.

    With tools, the text of all answers of the turn; the functions are called in between.
    """

    def __init__(self, stream: Texts, keep: Keep) -> None:
        self._stream = stream
        self._keep: Keep | None = keep

    def __next__(self) -> str:
        try:
            return next(self._stream)
        except StopIteration:
            self._kept()
            raise

    def result(self) -> Result:
        """Read what is left and return the whole answer, with tools a `ToolRun`."""
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
        result = self._stream.result()
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

    def __init__(self, begin: Callable[[], Awaitable[tuple[AsyncTexts, Keep]]]) -> None:
        self._begin = begin
        self._stream: AsyncTexts | None = None
        self._keep: Keep | None = None

    async def __anext__(self) -> str:
        stream = await self._begun()
        try:
            return await stream.__anext__()
        except StopAsyncIteration:
            await self._kept()
            raise

    async def result(self) -> Result:
        """Read what is left and return the whole answer, with tools a `ToolRun`."""
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

    async def _begun(self) -> AsyncTexts:
        if self._stream is None:
            self._stream, self._keep = await self._begin()
        return self._stream

    async def _kept(self) -> Result:
        result = await (await self._begun()).result()
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


class ToolTexts:
    """Text of all answers of a run of tools; a run that failed or was left has no result."""

    def __init__(self, run: BlockingRun) -> None:
        self._run = run
        self._pieces = run.texts()
        self.text = ""

    @boundary
    def __next__(self) -> str:
        piece = next(self._pieces)
        self.text += piece
        return piece

    @boundary
    def result(self) -> ToolRun[Any]:
        for piece in self._pieces:
            self.text += piece
        return self._run.run()

    def close(self) -> None:
        self._pieces.close()


class AsyncToolTexts:
    """The async twin of `ToolTexts`."""

    def __init__(self, run: AsyncRun) -> None:
        self._run = run
        self._pieces = run.texts()
        self.text = ""

    @boundary
    async def __anext__(self) -> str:
        piece = await anext(self._pieces)
        self.text += piece
        return piece

    @boundary
    async def result(self) -> ToolRun[Any]:
        async for piece in self._pieces:
            self.text += piece
        return self._run.run()

    async def close(self) -> None:
        await self._pieces.aclose()

    async def __aenter__(self) -> Self:
        return self
