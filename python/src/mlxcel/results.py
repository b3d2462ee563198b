"""The answer to a request: text that also carries everything else the server said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Self, cast

from . import _display
from ._measures import Timings, Usage
from ._reply import Reply
from ._tool_calls import ToolCall

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import TypeVar

    from .errors import MlxcelFormatError

    T = TypeVar("T", default=Any)  # so that a plain `Result` is good enough an annotation
else:
    from typing import TypeVar

    T = TypeVar("T")

__all__ = ["Result", "Timings", "ToolCall", "Usage"]


class Result(str, Generic[T]):
    """The text of an answer. Compares, slices, joins and pickles as the `str` it is.

    An answer that is only a tool call is an empty, falsy string: test
    `result.tool_calls`, not `result`.

    `Result[T]` is one whose `parsed` is a `T`, see `response_format`.
    """

    usage: Usage | None
    """Token counts of the whole request, if the server gives them."""
    finish_reason: str | None
    """`"stop"`, `"length"`, `"tool_calls"`, … as the server said it."""
    timings: Timings
    """The server's own measurements; its fields are None where it gives none."""
    logprobs: Any
    """The SDK's logprobs object of this choice, when they were asked for."""
    reasoning: str | None
    """What a reasoning model wrote before its answer."""
    refusal: str | None
    """Why the model refused, where the server tells that apart from an answer."""
    tool_calls: list[ToolCall]
    """The model's calls of the tools that were declared, in its order."""

    def __new__(
        cls,
        text: str = "",
        *,
        usage: Usage | None = None,
        finish_reason: str | None = None,
        timings: Timings | None = None,
        logprobs: Any = None,
        reasoning: str | None = None,
        refusal: str | None = None,
        tool_calls: Sequence[ToolCall] = (),
        raw: Any = None,
    ) -> Self:
        self = super().__new__(cls, text)
        self.usage = usage
        self.finish_reason = finish_reason
        self.timings = Timings() if timings is None else timings
        self.logprobs = logprobs
        self.reasoning = reasoning
        self.refusal = refusal
        self.tool_calls = list(tool_calls)
        self._raw = raw
        self._others = ()
        self._parsed = None
        self._fault = None
        return self

    _raw: Any
    _others: tuple[Result[T], ...]
    _parsed: T | None
    _fault: MlxcelFormatError | None

    @property
    def raw(self) -> Any:
        """The SDK's whole reply; for a stream, its last chunk."""
        return self._raw.as_sdk_object() if isinstance(self._raw, Reply) else self._raw

    @property
    def choices(self) -> list[Result[T]]:
        """All answers when `n > 1`, this one first."""
        return [self, *self._others]

    def with_others(self, others: Sequence[Result[T]]) -> Self:
        """This result as the first of several choices; for use while it is built."""
        self._others = tuple(others)
        return self

    def with_parsed(self, value: T) -> Self:
        """This result with what `parsed` gives; for use while it is built."""
        self._parsed = value
        return self

    def with_fault(self, fault: MlxcelFormatError) -> Self:
        """This result with what `parsed` raises; for use while it is built."""
        self._fault = fault
        return self

    @property
    def parsed(self) -> T:
        """The answer as what `response_format` asked for; None when nothing was.

        Raises the MlxcelFormatError of this choice where it is something else.
        """
        if self._fault is not None:
            raise self._fault
        return cast("T", self._parsed)

    def as_message(self) -> dict[str, Any]:
        """The answer as a message in OpenAI's form, to go on with the conversation."""
        message: dict[str, Any] = {"role": "assistant", "content": str(self)}
        if self.reasoning:
            message["reasoning_content"] = self.reasoning
        if self.tool_calls:
            message["content"] = str(self) or None
            message["tool_calls"] = [call.as_dict() for call in self.tool_calls]
        return message

    def __repr__(self) -> str:
        return _display.short(self)

    def _repr_markdown_(self) -> str:
        return _display.markdown(self)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # noqa: ARG002 - IPython's protocol
        printer.text(_display.terminal(self))
