"""The loop of `run_tools` as a state machine: what to ask next, which calls to execute. No I/O."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from . import _requests
from ._toolbox import Toolbox
from .errors import MlxcelConfigError, MlxcelStateError, MlxcelToolArgumentsError, MlxcelToolStepsError
from .tools import ToolOutcome, ToolRun, ToolStep

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ._requests import Messages
    from ._tool_calls import ToolCall
    from .results import Result
    from .tools import AnyTool

__all__ = ["ToolLoop", "denied", "failed", "returned"]


class ToolLoop:
    """Where a run stands."""

    def __init__(
        self,
        messages: Messages,
        tools: Iterable[AnyTool],
        params: Mapping[str, Any],
        *,
        max_steps: int,
        max_malformed: int,
        on_error: str,
    ) -> None:
        if max_steps < 1 or max_malformed < 0:
            raise MlxcelConfigError("max_steps is at least 1, and max_malformed at least 0")
        if on_error not in ("report", "raise"):
            raise MlxcelConfigError(f"on_error is 'report' or 'raise', not {on_error!r}")
        if params.get("n") not in (None, 1):
            raise MlxcelConfigError("run_tools follows one answer: leave n out")
        self.toolbox = Toolbox(tools)
        if bare := sorted(set(self.toolbox.names) - self.toolbox.tools.keys()):
            raise MlxcelConfigError(f"run_tools cannot execute {bare}: give functions, or use chat()")
        if not self.toolbox.tools:
            raise MlxcelConfigError("run_tools needs at least one tool")
        self.messages = _requests.conversation(messages)
        self.steps: list[ToolStep] = []
        self.raises = on_error == "raise"
        self._params = dict(params)
        self._max_steps = max_steps
        self._max_malformed = max_malformed
        self._malformed = 0

    @property
    def number(self) -> int:
        """Of the step that is next or under way, from 1."""
        return len(self.steps) + 1

    def params(self) -> dict[str, Any]:
        """Those of the next request. A call is forced once: it would be forced for ever otherwise."""
        params = {**self._params, "tools": list(self.toolbox.tools.values())}
        if self.steps and params.get("tool_choice") not in (None, "none", "auto"):
            params["tool_choice"] = "auto"
        return params

    def calls(self, result: Result[Any]) -> list[ToolCall]:
        """The calls of an answer, all well formed, that are to be executed before the step ends.

        None at all if one is malformed: `refused` has the outcomes then. Raises
        MlxcelToolStepsError when there is no step left to tell the model their results.
        """
        result.tool_calls = [
            call if call.id else dataclasses.replace(call, id=f"call_{self.number}_{at}")
            for at, call in enumerate(result.tool_calls)
        ]
        if result.tool_calls and self.number >= self._max_steps:
            run = self._ended(result)
            raise MlxcelToolStepsError(
                f"the model still calls tools after max_steps={self._max_steps} answers: "
                "raise max_steps, or look at what it does in .run.messages",
                run=run,
            )
        return [] if any(map(self.toolbox.fault, result.tool_calls)) else result.tool_calls

    def refused(self, result: Result[Any]) -> list[ToolOutcome]:
        """What the model is told of an answer with a malformed call.

        Raises the MlxcelToolArgumentsError of the first when it has been told often enough.
        """
        faults = [self.toolbox.fault(call) for call in result.tool_calls]
        first = next((fault for fault in faults if fault is not None), None)
        if first is None:
            self._malformed = 0
            return []
        self._malformed += 1
        if self._malformed > self._max_malformed:
            first.run = self._ended(result)
            raise first
        return [
            _told(call, self.number, fault) for call, fault in zip(result.tool_calls, faults, strict=True)
        ]

    def end_step(self, result: Result[Any], outcomes: list[ToolOutcome]) -> ToolStep:
        """Take the outcomes of a step's calls into the conversation."""
        step = ToolStep(self.number, result, outcomes)
        self.steps.append(step)
        self.messages.append(result.as_message())
        self.messages += [outcome.as_message() for outcome in outcomes]
        return step

    def run(self) -> ToolRun[Any]:
        """All of it. Raises MlxcelStateError before the last step is an answer."""
        if not self.steps or self.steps[-1].result.tool_calls:
            raise MlxcelStateError("the run was left before its answer, so it has no result")
        return ToolRun.of(self.steps, self.messages)

    def _ended(self, result: Result[Any]) -> ToolRun[Any]:
        """The run that stops at an answer whose calls are not executed."""
        last = ToolStep(self.number, result)
        return ToolRun.of([*self.steps, last], [*self.messages, result.as_message()])


def returned(call: ToolCall, step: int, value: Any) -> ToolOutcome:
    """The outcome of a function that returned."""
    try:
        return ToolOutcome(call, step, _content(value), value)
    except ValueError as error:
        return failed(call, step, error)


def failed(call: ToolCall, step: int, error: Exception) -> ToolOutcome:
    """The outcome of a function that raised."""
    return ToolOutcome(call, step, _error(f"{type(error).__name__}: {error}"), None, error)


def denied(call: ToolCall, step: int, answer: bool | str) -> ToolOutcome:
    """The outcome of a call that was not approved."""
    why = answer if isinstance(answer, str) and answer else "the user does not allow this call"
    return ToolOutcome(call, step, _error(why), None, PermissionError(why), executed=False)


def _told(call: ToolCall, step: int, fault: MlxcelToolArgumentsError | None) -> ToolOutcome:
    if fault is None:
        why = "not executed: another call of the same answer was malformed. Repeat it if it is still wanted"
        return ToolOutcome(call, step, _error(why), executed=False)
    content = _content({"error": f"not executed: {fault}", "you_wrote": call.raw})
    return ToolOutcome(call, step, content, None, fault, executed=False)


def _error(message: str) -> str:
    return _content({"error": message})


def _content(value: Any) -> str:
    """What a function returned, as the model reads it: text as it is, else a JSON object."""
    if isinstance(value, str):
        return value
    import pydantic_core

    written = pydantic_core.to_json(value, inf_nan_mode="null").decode()
    return written if written.startswith("{") else f'{{"result":{written}}}'
