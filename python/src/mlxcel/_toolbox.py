"""The tools of one request, and its calls held to them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from ._tool_schema import MisfitError, Tool
from .errors import MlxcelConfigError, MlxcelToolArgumentsError

if TYPE_CHECKING:
    from ._tool_calls import ToolCall

__all__ = ["AnyTool", "Toolbox", "made", "with_tools_made"]

AnyTool: TypeAlias = Callable[..., Any] | Tool | Mapping[str, Any]
"""A function, a `Tool`, or a tool in OpenAI's form, which has no function behind it."""


def made(tools: Iterable[AnyTool]) -> list[Tool | Mapping[str, Any]]:
    """The same tools, functions made into a `Tool` each: that takes its time, and many requests use them."""
    if isinstance(tools, str | Mapping) or not isinstance(tools, Iterable):
        raise MlxcelConfigError(f"tools is a list of functions, not {tools!r}: write tools=[f, g]")
    return [tool if isinstance(tool, Tool | Mapping) else Tool(tool) for tool in tools]


def with_tools_made(params: Mapping[str, Any]) -> Mapping[str, Any]:
    """The parameters of many requests, with their tools made once."""
    return params if params.get("tools") is None else {**params, "tools": made(params["tools"])}


class Toolbox:
    """Tools by name; those in OpenAI's form are sent as they are and their calls only parsed."""

    def __init__(self, tools: Iterable[AnyTool]) -> None:
        self.wire: list[Any] = []
        """All of them, in OpenAI's form."""
        self.tools: dict[str, Tool] = {}
        """Those that can be called, by name."""
        self._names: set[str] = set()
        for tool in made(tools):
            self._add(tool)

    @property
    def names(self) -> list[str]:
        """Of all functions that the model is told of."""
        return sorted(self._names)

    def _add(self, tool: Tool | Mapping[str, Any]) -> None:
        if isinstance(tool, Mapping):
            self.wire.append(dict(tool))
            function = tool.get("function")
            name = function.get("name") if isinstance(function, Mapping) else tool.get("name")
        else:
            self.wire.append(tool.as_dict())
            name = tool.name
        if not isinstance(name, str):
            return
        if name in self._names:
            raise MlxcelConfigError(f"two tools are called {name!r}: name one with Tool(function, name='…')")
        self._names.add(name)
        if isinstance(tool, Tool):
            self.tools[name] = tool

    def checked(self, call: ToolCall) -> ToolCall:
        """The call with its arguments as its function takes them, or with the error that they raise."""
        tool = self.tools.get(call.name)
        if tool is None or not call.valid:
            return call
        try:
            return call.with_values(tool.validated(call.raw))
        except MisfitError as misfit:
            return call.with_misfit(str(misfit))

    def fault(self, call: ToolCall) -> MlxcelToolArgumentsError | None:
        """Why a checked call cannot be executed; None if it can."""
        if not call.name:
            return MlxcelToolArgumentsError(
                'a call is a JSON object with a string "name" and an object "arguments"',
                raw=call.raw,
                id=call.id,
            )
        if call.name not in self._names:
            there = ", ".join(self.names)
            return MlxcelToolArgumentsError(
                f"there is no tool {call.name!r}; there are: {there}",
                raw=call.raw,
                name=call.name,
                id=call.id,
            )
        try:
            _ = call.arguments
        except MlxcelToolArgumentsError as error:
            return error
        return None
