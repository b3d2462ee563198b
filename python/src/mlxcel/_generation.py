"""One request for text, from a caller's arguments to the result. Pure, for `LLM` and `AsyncLLM` alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from . import _requests, _responses
from ._structured import as_format, settle

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx2

    from ._requests import Messages, Prompt
    from ._shape import Shape
    from ._structured import ResponseFormat
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

    @classmethod
    def completion(
        cls, prompt: Prompt, params: Mapping[str, Any], response_format: ResponseFormat | None = None
    ) -> Generation:
        return cls("completions", prompt, *_formatted(params, response_format))

    @classmethod
    def chat(
        cls, messages: Messages, params: Mapping[str, Any], response_format: ResponseFormat | None = None
    ) -> Generation:
        return cls("chat", messages, *_formatted(params, response_format))

    @property
    def unchecked_model(self) -> str | None:
        """A model in `extra_body`, which wins over everything and is sent as it is."""
        extra = self.params.get("extra_body")
        return extra.get("model") if isinstance(extra, dict) else None

    def arguments(self, model: str, timeout: httpx2.Timeout, *, stream: bool) -> dict[str, Any]:
        """Arguments for the SDK's `create`."""
        build = _requests.chat if self.route == "chat" else _requests.completion
        return {**build(self.content, model, self.params, stream=stream), "timeout": timeout}

    def create(self, client: Any) -> Any:
        """The SDK's method for it, on either kind of client."""
        return client.chat.completions.create if self.route == "chat" else client.completions.create

    def read(self, reply: Any) -> Result:
        """The result from a whole reply. Raises MlxcelFormatError for one that is not what was asked for."""
        read = _responses.chat if self.route == "chat" else _responses.completion
        result = read(reply)
        if (fault := self.settle(result)) is not None:
            raise fault
        return result

    def settle(self, result: Result) -> MlxcelFormatError | None:
        """Validate a result against what was asked for; the error when it is something else."""
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
