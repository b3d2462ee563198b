"""What a stream knows of its answer while it comes: no I/O."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Generic, cast

from ._accumulate import Accumulator
from .errors import MlxcelStateError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import TypeVar

    from ._generation import Generation
    from .errors import MlxcelFormatError
    from .events import Event
    from .results import Result

    ItemT = TypeVar("ItemT")
    T = TypeVar("T", default=Any)
else:
    from typing import TypeVar

    ItemT = TypeVar("ItemT")
    T = TypeVar("T")

__all__ = ["Reading"]

_CLOSED = "the stream was closed before its end, so it has no result; text so far is in .text"


class Reading(Generic[ItemT, T]):
    """What both kinds of streams know of the answer; no I/O."""

    def __init__(self, asked: Generation) -> None:
        self._asked = asked
        self._accumulator = Accumulator(prompt_calls=asked.prompt_calls)
        self._waiting: deque[ItemT] = deque()
        self._result: Result[T] | None = None
        self._fault: MlxcelFormatError | None = None
        self._fault_told = False
        self._partial: tuple[str, T | None] = ("", None)

    @property
    def text(self) -> str:
        """All text of the first choice so far."""
        return self._accumulator.text

    @property
    def partial(self) -> T | None:
        """What of the `response_format` there is so far, validated; None while that is nothing.

        Of a model or a dataclass it is an instance in which a field that is yet to come has its default or
        None. A string may still grow; a number is there once it is complete.
        """
        text = self.text
        if self._asked.shape is not None and self._partial[0] != text:
            self._partial = text, self._asked.shape.partial(text)
        return self._partial[1]

    def _text_so_far(self) -> str:
        return self._accumulator.text

    def _items(self, events: list[Event]) -> Iterable[ItemT]:
        raise NotImplementedError

    def _add(self, chunk: Any) -> None:
        self._waiting.extend(self._items(self._accumulator.add(chunk)))

    def _end(self) -> None:
        """The server has sent all. Raises MlxcelResponseError if that is not a whole answer."""
        result = self._accumulator.result()
        self._fault = self._asked.settle(result)
        self._result = cast("Result[T]", result)
        self._waiting.extend(self._items(self._accumulator.end()))

    def _drop(self) -> None:
        """Nobody wants to hear more."""
        self._waiting.clear()
        self._fault_told = True

    def _tell_fault(self) -> None:
        if self._fault is not None and not self._fault_told:
            self._fault_told = True
            raise self._fault

    def _whole(self) -> Result[T]:
        if self._fault is not None:
            raise self._fault
        if self._result is None:
            raise MlxcelStateError(_CLOSED)
        return self._result
