"""Puts the chunks of a stream together into the result that a whole reply would have given."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ._measures import timings_of, usage_of
from ._tool_calls import Fragments
from .errors import MlxcelResponseError
from .results import Result

if TYPE_CHECKING:
    from ._measures import Timings, Usage

__all__ = ["Accumulator"]


@dataclass
class _Choice:
    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    refusal: list[str] = field(default_factory=list)
    logprobs: list[Any] = field(default_factory=list)
    tool_calls: Fragments = field(default_factory=Fragments)
    finish_reason: str | None = None


class Accumulator:
    """Feeds on chunks of `/v1/completions` or `/v1/chat/completions`, whichever comes."""

    def __init__(self, *, is_json: bool = False) -> None:
        self._is_json = is_json
        self._choices: dict[int, _Choice] = {}
        self._usage: Usage | None = None
        self._timings: Timings | None = None
        self._last: Any = None
        self.moved = False
        """Whether the last chunk carried a piece of an answer, and not only its frame."""

    def add(self, chunk: Any) -> str:
        """Take one chunk; returns the text it adds to the first choice, often none."""
        self._last = chunk
        self.moved = False
        self._usage = usage_of(chunk) or self._usage
        self._timings = timings_of(chunk) or self._timings
        shown = ""
        for choice in getattr(chunk, "choices", None) or ():
            index = getattr(choice, "index", None) or 0
            text = self._add_choice(self._choices.setdefault(index, _Choice()), choice)
            if index == 0:
                shown += text
        return shown

    @property
    def text(self) -> str:
        """The first choice's text so far."""
        return "".join(self._choices[0].text) if 0 in self._choices else ""

    def result(self) -> Result:
        """The final result. A stream in which a choice never finished was cut off: MlxcelResponseError."""
        if 0 not in self._choices or any(choice.finish_reason is None for choice in self._choices.values()):
            raise MlxcelResponseError("the stream ended before the answer did", text=self.text)
        first, *others = [self._result(choice) for _, choice in sorted(self._choices.items())]
        return first.with_others(others)

    def _add_choice(self, into: _Choice, choice: Any) -> str:
        finish_reason = getattr(choice, "finish_reason", None)
        into.finish_reason = finish_reason or into.finish_reason
        reasoning: str | None = None
        tool_calls: Any = ()
        logprobs = getattr(choice, "logprobs", None)
        if logprobs is not None:
            into.logprobs.append(logprobs)
        delta = getattr(choice, "delta", None)
        if delta is None:  # a completion chunk
            text = getattr(choice, "text", None) or ""
        else:
            text = getattr(delta, "content", None) or ""
            reasoning = getattr(delta, "reasoning_content", None) or getattr(delta, "reasoning", None)
            if reasoning:
                into.reasoning.append(reasoning)
            refusal = getattr(delta, "refusal", None)
            if refusal:
                into.refusal.append(refusal)
            tool_calls = getattr(delta, "tool_calls", None) or ()
            for call in tool_calls:
                into.tool_calls.add(call)
        if text:
            into.text.append(text)
        if text or reasoning or tool_calls or finish_reason or logprobs is not None:
            self.moved = True
        return text

    def _result(self, choice: _Choice) -> Result:
        return Result(
            "".join(choice.text),
            usage=self._usage,
            finish_reason=choice.finish_reason,
            timings=self._timings,
            logprobs=_joined(choice.logprobs),
            reasoning="".join(choice.reasoning) or None,
            refusal="".join(choice.refusal) or None,
            tool_calls=choice.tool_calls.calls(),
            is_json=self._is_json,
            raw=self._last,
        )


def _joined(parts: list[Any]) -> Any:
    """One logprobs object whose lists hold those of all parts, in order."""
    if not parts:
        return None
    fields: dict[str, Any] = {}
    for part in parts:
        for name, value in part:
            if isinstance(value, list):
                fields[name] = [*(fields.get(name) or []), *value]
            else:
                fields.setdefault(name, value)
    return type(parts[0]).model_construct(**fields)
