"""The answer to a request: text that also carries everything else the server said."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Generic, Self

from . import _display
from ._measures import Timings, Usage
from ._tool_calls import ToolCall
from .errors import MlxcelResponseError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import TypeVar

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
    raw: Any
    """The SDK's whole reply; for a stream, its last chunk."""

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
        is_json: bool = False,
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
        self.raw = raw
        self._others = ()
        self._is_json = is_json
        return self

    _others: tuple[Result[T], ...]
    _is_json: bool

    @property
    def choices(self) -> list[Result[T]]:
        """All answers when `n > 1`, this one first."""
        return [self, *self._others]

    def with_others(self, others: Sequence[Result[T]]) -> Self:
        """This result as the first of several choices; for use while it is built."""
        self._others = tuple(others)
        return self

    @property
    def parsed(self) -> Any:
        """The value of a JSON answer (`response_format` json_object or json_schema), else None.

        Raises MlxcelResponseError with the text when it is not complete JSON.
        """
        if not self._is_json:
            return None
        try:
            return json.loads(self)
        except ValueError as error:
            why = (
                "it was cut off at max_tokens or the end of the context"
                if self.finish_reason == "length"
                else f"the server did not keep to response_format: {error}"
            )
            raise MlxcelResponseError(f"the answer is not JSON: {why}", text=str(self)) from error

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
