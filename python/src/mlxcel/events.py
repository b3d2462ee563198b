"""What happens in a stream, as values to match on: `chat_stream(…, events=True)`.

    for event in stream:
        match event:
            case TextDelta(text=text):
                print(text, end="")
            case Finish(reason="length"):
                print("… (cut off)")

Put together, the deltas are exactly the whole answer: the texts of a choice
are its text, and the arguments of a call's pieces are its `raw`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from ._measures import Usage

__all__ = ["Event", "Finish", "ReasoningDelta", "RefusalDelta", "TextDelta", "ToolCallDelta"]


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More of an answer's text."""

    text: str
    choice: int = 0
    """Which of the `n` answers it belongs to."""


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """More of what a reasoning model thinks before its answer."""

    text: str
    choice: int = 0


@dataclass(frozen=True, slots=True)
class RefusalDelta:
    """More of why the model refuses, where the server tells that apart."""

    text: str
    choice: int = 0


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """The beginning of a tool call, or more of its arguments."""

    index: int
    """The place of the call among those of its answer."""
    id: str
    """The call's id where it begins, empty in the pieces that follow."""
    name: str
    """The function's name where it begins, empty in the pieces that follow."""
    arguments: str
    """A piece of the JSON text of the arguments."""
    choice: int = 0


@dataclass(frozen=True, slots=True)
class Finish:
    """One answer is complete."""

    reason: str
    """`"stop"`, `"length"`, `"tool_calls"`, … as the server said it."""
    choice: int = 0


Event: TypeAlias = TextDelta | ReasoningDelta | RefusalDelta | ToolCallDelta | Finish | Usage
"""Any of them. `Usage`, where the server gives one, is the last."""
