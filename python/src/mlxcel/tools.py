"""What `run_tools` takes, tells and gives."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from ._tool_schema import Tool
from ._toolbox import AnyTool
from .events import Event
from .results import Result

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from ._tool_calls import ToolCall

    T = TypeVar("T", default=Any)
else:
    from typing import TypeVar

    T = TypeVar("T")

__all__ = ["AnyTool", "Approval", "Tool", "ToolEvent", "ToolOutcome", "ToolRun", "ToolStart", "ToolStep"]


@dataclass(frozen=True, slots=True)
class ToolStart:
    """A call is about to be executed."""

    call: ToolCall
    step: int
    """Which answer of the model asked for it, from 1."""


@dataclass(frozen=True, slots=True)
class ToolOutcome:
    """What became of a call."""

    call: ToolCall
    step: int
    content: str
    """What the model is told."""
    value: Any = None
    """What the function returned."""
    error: Exception | None = None
    """What it raised, or why it was not called."""
    executed: bool = True
    """Whether the function was called at all."""

    def as_message(self) -> dict[str, Any]:
        """The message that tells the model, in OpenAI's form."""
        return {"role": "tool", "tool_call_id": self.call.id, "content": self.content}


@dataclass(frozen=True, slots=True)
class ToolStep:
    """One answer of the model and what became of its calls."""

    number: int
    """From 1."""
    result: Result[Any]
    outcomes: list[ToolOutcome] = field(default_factory=list)
    """In the order of the calls; empty for the last step, which is the answer."""


ToolEvent: TypeAlias = Event | ToolStart | ToolOutcome | ToolStep
"""What `on_event` is told: the events of each answer's stream, each call's start and outcome, each step."""

Approval: TypeAlias = Callable[["ToolCall"], "bool | str | Awaitable[bool | str]"]
"""Asked before a call is executed: True to go on, False to refuse, or a string to say why not."""


class ToolRun(Result[T]):
    """The final answer of `run_tools`, a `Result`, and how it came about.

    `usage` is that of all steps together.
    """

    messages: list[dict[str, Any]]
    """The whole conversation: what was given, each call, each result, the answer."""
    steps: list[ToolStep]

    @classmethod
    def of(cls, steps: Sequence[ToolStep], messages: Sequence[dict[str, Any]]) -> Self:
        """The run of one step at least, its last result being the answer."""
        last = steps[-1].result
        usages = [step.result.usage for step in steps if step.result.usage is not None]
        run = cls(
            str(last),
            usage=sum(usages[1:], usages[0]) if usages else None,
            finish_reason=last.finish_reason,
            timings=last.timings,
            logprobs=last.logprobs,
            reasoning=last.reasoning,
            refusal=last.refusal,
            tool_calls=last.tool_calls,
            raw=last._raw,
        )
        run._parsed, run._fault = last._parsed, last._fault
        run.messages = list(messages)
        run.steps = list(steps)
        return run
