"""The answer to a request: text that also carries everything else the server said."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Self

from .errors import MlxcelResponseError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openai.types import CompletionUsage

__all__ = ["Result"]


class Result(str):
    """The text of an answer. Compares, slices, joins and pickles as the `str` it is.

    An answer that is only a tool call is an empty, falsy string: test
    `result.tool_calls`, not `result`.
    """

    usage: CompletionUsage | None
    """Token counts of the whole request, if the server gives them."""
    finish_reason: str | None
    """`"stop"`, `"length"`, `"tool_calls"`, … as the server said it."""
    timings: dict[str, Any] | None
    """The server's own measurements, as it sent them."""
    logprobs: Any
    """The SDK's logprobs object of this choice, when they were asked for."""
    reasoning: str | None
    """What a reasoning model wrote before its answer."""
    tool_calls: list[Any]
    """The SDK's tool call objects."""
    raw: Any
    """The SDK's whole reply; for a stream, its last chunk."""

    def __new__(
        cls,
        text: str = "",
        *,
        usage: CompletionUsage | None = None,
        finish_reason: str | None = None,
        timings: dict[str, Any] | None = None,
        logprobs: Any = None,
        reasoning: str | None = None,
        tool_calls: Sequence[Any] = (),
        is_json: bool = False,
        raw: Any = None,
    ) -> Self:
        self = super().__new__(cls, text)
        self.usage = usage
        self.finish_reason = finish_reason
        self.timings = timings
        self.logprobs = logprobs
        self.reasoning = reasoning
        self.tool_calls = list(tool_calls)
        self.raw = raw
        self._others = ()
        self._is_json = is_json
        return self

    _others: tuple[Result, ...]
    _is_json: bool

    @property
    def choices(self) -> list[Result]:
        """All answers when `n > 1`, this one first."""
        return [self, *self._others]

    def with_others(self, others: Sequence[Result]) -> Result:
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
