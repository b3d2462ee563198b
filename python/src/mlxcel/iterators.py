"""Answers to an iterator of prompts: read a little ahead, in order, however many there are."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Generic, Self

from ._boundary import boundary
from .errors import MlxcelStateError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator
    from types import TracebackType

    from typing_extensions import TypeVar

    T = TypeVar("T")
else:
    from typing import TypeVar

    T = TypeVar("T")

__all__ = ["AsyncResultIterator", "ResultIterator"]


class ResultIterator(Iterator[T], Generic[T]):
    """The results, in the order of the prompts. Closing, leaving or dropping it ends the requests under way.

    Prompts are read in the thread that asks for results, a few for each request that may be under way.
    """

    def __init__(self, outcomes: Generator[T]) -> None:
        self._outcomes = outcomes
        self._pid = os.getpid()

    @boundary
    def __next__(self) -> T:
        if self._pid != os.getpid():
            raise MlxcelStateError("this iterator belongs to the parent process: its requests run there")
        return next(self._outcomes)

    def close(self) -> None:
        """End the requests under way; there is nothing more to come."""
        if self._pid == os.getpid():
            self._outcomes.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class AsyncResultIterator(AsyncIterator[T], Generic[T]):
    """The async twin of `ResultIterator`; `break` ends the requests one turn of the loop later."""

    def __init__(self, outcomes: AsyncGenerator[T]) -> None:
        self._outcomes = outcomes

    @boundary
    async def __anext__(self) -> T:
        return await anext(self._outcomes)

    async def close(self) -> None:
        """Cancel the requests under way; there is nothing more to come."""
        await self._outcomes.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
