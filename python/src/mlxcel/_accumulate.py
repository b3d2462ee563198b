"""Puts the chunks of a stream together into the result that a whole reply would have given."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ._fields import item, items, text
from ._measures import timings_of, usage_of
from ._tool_calls import Fragments
from ._tool_prompt import PromptReader, finish_of
from .errors import MlxcelResponseError
from .events import Finish, ReasoningDelta, RefusalDelta, TextDelta, ToolCallDelta
from .results import Result

if TYPE_CHECKING:
    from ._measures import Timings, Usage
    from ._tool_calls import ToolCall
    from ._tool_prompt import Read
    from .events import Event

__all__ = ["Accumulator"]


@dataclass
class _Choice:
    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    refusal: list[str] = field(default_factory=list)
    logprobs: list[Any] = field(default_factory=list)
    tool_calls: Fragments = field(default_factory=Fragments)
    reader: PromptReader = field(default_factory=PromptReader)
    called: list[ToolCall] = field(default_factory=list)
    """Calls that stood in the text."""
    finish_reason: str | None = None


class Accumulator:
    """Feeds on chunks of `/v1/completions` or `/v1/chat/completions`, whichever comes."""

    def __init__(self, *, prompt_calls: bool = False) -> None:
        self._prompt_calls = prompt_calls
        self._choices: dict[int, _Choice] = {}
        self._usage: Usage | None = None
        self._timings: Timings | None = None
        self._last: Any = None
        self.moved = False
        """Whether the last chunk carried a piece of an answer, and not only its frame."""

    def add(self, chunk: Any) -> list[Event]:
        """Take one chunk; returns what it brings, often nothing."""
        self._last = chunk
        self.moved = False
        self._usage = usage_of(chunk) or self._usage
        self._timings = timings_of(chunk) or self._timings
        events: list[Event] = []
        for choice in items(chunk, "choices"):
            index = item(choice, "index") or 0
            self._add_choice(self._choices.setdefault(index, _Choice()), index, choice, events)
        self.moved = self.moved or bool(events)
        return events

    def end(self) -> list[Event]:
        """What is known only at the end: usage counts, which some servers repeat and raise in each chunk."""
        return [] if self._usage is None else [self._usage]

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

    def _add_choice(self, into: _Choice, index: int, choice: Any, events: list[Event]) -> None:
        logprobs = item(choice, "logprobs")
        if logprobs is not None:
            into.logprobs.append(logprobs)
            self.moved = True
        delta = item(choice, "delta")
        if delta is None:  # a completion chunk
            delta, written = choice, text(choice, "text")
        else:
            written = text(delta, "content")
        if reasoning := text(delta, "reasoning_content") or text(delta, "reasoning"):
            into.reasoning.append(reasoning)
            events.append(ReasoningDelta(reasoning, index))
        if refusal := text(delta, "refusal"):
            into.refusal.append(refusal)
            events.append(RefusalDelta(refusal, index))
        finish_reason = item(choice, "finish_reason")
        ends = bool(finish_reason) and into.finish_reason is None
        if self._prompt_calls:
            pieces = into.reader.feed(written)
            if ends:
                pieces += into.reader.end()
            self.moved = self.moved or bool(written)
            for piece in pieces:
                _add_piece(into, index, piece, events)
        elif written:
            into.text.append(written)
            events.append(TextDelta(written, index))
        events.extend(into.tool_calls.add(call, index) for call in items(delta, "tool_calls"))
        if ends:
            finish_reason = finish_of(finish_reason, into.called) or ""
            into.finish_reason = finish_reason
            events.append(Finish(finish_reason, index))

    def _result(self, choice: _Choice) -> Result:
        return Result(
            "".join(choice.text),
            usage=self._usage,
            finish_reason=choice.finish_reason,
            timings=self._timings,
            logprobs=_joined(choice.logprobs),
            reasoning="".join(choice.reasoning) or None,
            refusal="".join(choice.refusal) or None,
            tool_calls=[*choice.tool_calls.calls(), *choice.called],
            raw=self._last,
        )


def _add_piece(into: _Choice, index: int, piece: Read, events: list[Event]) -> None:
    if (call := piece.call) is not None:
        events.append(ToolCallDelta(len(into.called), call.id, call.name, call.raw, index))
        into.called.append(call)
    else:
        into.text.append(piece.text)
        events.append(TextDelta(piece.text, index))


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
