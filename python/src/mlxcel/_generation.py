"""One request for text, from a caller's arguments to the result. Pure, for `LLM` and `AsyncLLM` alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from . import _requests, _responses
from ._accumulate import Accumulator

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx2

    from ._requests import Messages, Prompt
    from .results import Result

__all__ = ["Generation"]


@dataclass(frozen=True)
class Generation:
    """What is asked; not yet of which model, nor whether the answer is streamed."""

    route: Literal["completions", "chat"]
    content: Any
    params: Mapping[str, Any]

    @classmethod
    def completion(cls, prompt: Prompt, params: Mapping[str, Any]) -> Generation:
        return cls("completions", prompt, params)

    @classmethod
    def chat(cls, messages: Messages, params: Mapping[str, Any]) -> Generation:
        return cls("chat", messages, params)

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
        """The result from a whole reply."""
        read = _responses.chat if self.route == "chat" else _responses.completion
        return read(reply, is_json=_responses.wants_json(self.params))

    def accumulator(self) -> Accumulator:
        """What puts a streamed reply together."""
        return Accumulator(is_json=_responses.wants_json(self.params))
