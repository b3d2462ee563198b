"""One request for text, from a caller's arguments to the result. Pure, for `LLM` and `AsyncLLM` alike."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from . import _requests, _responses
from ._structured import as_format, settle
from ._tool_prompt import told
from ._toolbox import Toolbox

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx2

    from ._requests import Messages, Prompt
    from ._shape import Shape
    from ._structured import ResponseFormat
    from ._tool_prompt import ToolProtocol
    from .errors import MlxcelFormatError
    from .results import Result

__all__ = ["Generation"]


@dataclass(frozen=True)
class Generation:
    """What is asked; not yet of which model, nor whether the answer is streamed."""

    route: Literal["completions", "chat"]
    content: Any
    params: Mapping[str, Any]
    shape: Shape | None = None
    """What the answer is held to."""
    tools: Toolbox | None = None
    """What its calls are held to."""
    prompt_calls: bool = False
    """Whether its calls stand in its text."""

    @classmethod
    def completion(
        cls, prompt: Prompt, params: Mapping[str, Any], response_format: ResponseFormat | None = None
    ) -> Generation:
        return cls("completions", prompt, *_formatted(params, response_format))

    @classmethod
    def chat(
        cls,
        messages: Messages,
        params: Mapping[str, Any],
        response_format: ResponseFormat | None = None,
        protocol: ToolProtocol = "native",
    ) -> Generation:
        if "tool_protocol" in params:
            raise TypeError("tool_protocol is said once, where the client is made: LLM(…, tool_protocol=…)")
        params, shape = _formatted(params, response_format)
        tools = None
        if params.get("tools") is not None:
            tools = Toolbox(params["tools"])
            params = {**params, "tools": tools.wire}
        asked = cls("chat", messages, params, shape, tools)
        return asked if protocol == "native" else asked._in_prompt()

    def _in_prompt(self) -> Generation:
        wire = [] if self.tools is None else self.tools.wire
        content, params = told(_requests.conversation(self.content), wire, self.params)
        calls = bool(wire) and self.params.get("tool_choice") != "none"
        return replace(self, content=content, params=params, prompt_calls=calls)

    @property
    def unchecked_model(self) -> str | None:
        """A model in `extra_body`, which wins over everything and is sent as it is."""
        extra = self.params.get("extra_body")
        return extra.get("model") if isinstance(extra, dict) else None

    def arguments(self, model: str, timeout: httpx2.Timeout, *, stream: bool) -> dict[str, Any]:
        """Arguments for the SDK's `create`."""
        build = _requests.chat if self.route == "chat" else _requests.completion
        return {**build(self.content, model, self.params, stream=stream), "timeout": timeout}

    def read(self, reply: Any) -> Result:
        """The result from a whole reply. Raises MlxcelFormatError for one that is not what was asked for."""
        if self.route == "chat":
            result = _responses.chat(reply, prompt_calls=self.prompt_calls)
        else:
            result = _responses.completion(reply)
        if (fault := self.settle(result)) is not None:
            raise fault
        return result

    def settle(self, result: Result) -> MlxcelFormatError | None:
        """Validate a result against what was asked for; the error when it is something else.

        A malformed call is none: it raises where its arguments are read.
        """
        if self.tools is not None:
            for choice in result.choices:
                choice.tool_calls = [self.tools.checked(call) for call in choice.tool_calls]
        return None if self.shape is None else settle(result, self.shape)


def _formatted(
    params: Mapping[str, Any], response_format: ResponseFormat | None
) -> tuple[Mapping[str, Any], Shape | None]:
    """The parameters with a format in OpenAI's form, and what it holds an answer to."""
    extra = params.get("extra_body")
    if isinstance(extra, dict) and "response_format" in extra:
        sent = extra["response_format"]  # wins over everything and is sent as it is
        return params, as_format(sent).shape if isinstance(sent, dict) else None
    if response_format is None:
        return params, None
    asked = as_format(response_format)
    return {**params, "response_format": asked.wire}, asked.shape
