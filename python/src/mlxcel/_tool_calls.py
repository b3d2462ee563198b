"""A model's calls of tools, as it wrote them. Pure; `_toolbox` holds them to their functions."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from ._fields import item
from .errors import MlxcelToolArgumentsError
from .events import ToolCallDelta

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Fragments", "ToolCall", "argument_text", "tool_calls_of"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a function that the model asks for; nothing has been called yet."""

    id: str
    """The server's name for this call, which the answer to it has to repeat; empty if it gave none."""
    name: str
    raw: str
    """The arguments as the model wrote them: JSON, if all went well."""
    _values: Mapping[str, Any] | None = field(default=None, repr=False, compare=False)
    _misfit: str | None = field(default=None, repr=False, compare=False)

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments by name, a new dict each time; of a Python function, as its hints say.

        Raises MlxcelToolArgumentsError when what the model wrote is not one JSON object,
        also when it wrote nothing: malformed arguments never become `{}`. Raises it too
        for arguments that the Python function given as a tool does not take.
        """
        if self._misfit is not None:
            raise self._wrong(f"the arguments of the call of {self.name!r} do not fit it: {self._misfit}")
        if self._values is not None:
            return dict(self._values)
        try:
            value = json.loads(self.raw, parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            raise self._malformed(str(error)) from error
        if not isinstance(value, dict):
            raise self._malformed(f"it is {_KINDS.get(type(value), 'null')}")
        return value

    @property
    def valid(self) -> bool:
        """Whether `arguments` can be had."""
        try:
            _ = self.arguments
        except MlxcelToolArgumentsError:
            return False
        return True

    def with_values(self, values: Mapping[str, Any]) -> ToolCall:
        """This call with what `arguments` gives; for use while it is built."""
        return ToolCall(self.id, self.name, self.raw, values)

    def with_misfit(self, why: str) -> ToolCall:
        """This call with why `arguments` raises; for use while it is built."""
        return ToolCall(self.id, self.name, self.raw, None, why)

    def as_dict(self) -> dict[str, Any]:
        """The call in OpenAI's form, as an assistant's message holds it."""
        return {
            "id": self.id,
            "type": "function",
            "function": {"name": self.name, "arguments": self.raw},
        }

    def __str__(self) -> str:
        try:
            shown = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        except MlxcelToolArgumentsError:
            shown = f"malformed: {self.raw!r}"
        return f"{self.name}({shown})"

    def _malformed(self, why: str) -> MlxcelToolArgumentsError:
        return self._wrong(f"the arguments of the call of {self.name!r} are not a JSON object: {why}")

    def _wrong(self, message: str) -> MlxcelToolArgumentsError:
        return MlxcelToolArgumentsError(message, raw=self.raw, name=self.name, id=self.id)


_KINDS: dict[type, str] = {
    list: "an array",
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a number",
}


def tool_calls_of(calls: Iterable[Any]) -> list[ToolCall]:
    """Calls from a whole message, as objects of the SDK or dicts."""
    return [_tool_call(call) for call in calls]


def argument_text(arguments: Any) -> str:
    """Arguments, or a fragment of them, as text: some servers (Ollama's own) send the object itself."""
    if arguments is None:
        return ""
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


class Fragments:
    """Tool calls of a stream while their pieces come in."""

    def __init__(self) -> None:
        self._calls: list[_Growing] = []
        self._at: dict[int, int] = {}

    def add(self, delta: Any, choice: int = 0) -> ToolCallDelta:
        """Take one piece; returns it as an event, with the place of its call in the answer."""
        function = item(delta, "function")
        id, name = str(item(delta, "id") or ""), str(item(function, "name") or "")  # noqa: A001
        arguments = argument_text(item(function, "arguments"))
        place = self._place(item(delta, "index"), id, name)
        call = self._calls[place]
        id = "" if call.id else id  # noqa: A001 - some repeat it
        call.id += id
        call.name += name
        call.arguments.append(arguments)
        return ToolCallDelta(place, id, name, arguments, choice)

    def calls(self) -> list[ToolCall]:
        """The calls so far, in the order in which they began."""
        return [ToolCall(call.id, call.name, "".join(call.arguments)) for call in self._calls]

    def _place(self, index: int | None, id: str, name: str) -> int:  # noqa: A002
        if index is None:
            place = None if id or name else len(self._calls) - 1  # without both it goes on with the last
        else:
            place = self._at.get(index)
            if place is not None and id and id != (self._calls[place].id or id):
                place = None  # some servers give each call the index 0: another id is another call
        if place is None or place < 0:
            self._calls.append(_Growing())
            place = len(self._calls) - 1
        if index is not None:
            self._at[index] = place
        return place


@dataclass(slots=True)
class _Growing:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


def _tool_call(call: Any) -> ToolCall:
    # A custom tool's call has its text in place of arguments.
    function = item(call, "function")
    custom = item(call, "custom")
    name = item(function, "name") or item(custom, "name") or ""
    given = item(function, "arguments")
    return ToolCall(
        str(item(call, "id") or ""),
        str(name),
        argument_text(item(custom, "input") if given is None else given),
    )


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
