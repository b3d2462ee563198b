"""What a fixture server can do with a request: answer, or misbehave. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Fault", "HangUp", "Refuse", "Reply", "Stall"]


@dataclass(frozen=True, kw_only=True)
class _Text:
    reasoning: str = ""
    refusal: str = ""
    tool_calls: Sequence[tuple[str, Mapping[str, Any] | str]] = ()
    """Name and arguments of each; arguments that are a string are sent as they are, malformed or not."""


@dataclass(frozen=True)
class Reply(_Text):
    """An answer, streamed when the request asks for that; with `n`, each of its choices."""

    text: str | Sequence[str] = ""
    """The text, or the pieces that it is streamed in (a string is streamed by words)."""
    finish_reason: str = field(default="", kw_only=True)
    """As the server would say it; default: what the rest of the reply comes to."""
    prompt_tokens: int = field(default=1, kw_only=True)
    completion_tokens: int = field(default=2, kw_only=True)
    delay: float = field(default=0.0, kw_only=True)
    """Seconds before anything is sent."""
    between: float = field(default=0.0, kw_only=True)
    """Seconds before each piece of a stream but the first."""

    @property
    def whole(self) -> str:
        return self.text if isinstance(self.text, str) else "".join(self.text)

    @property
    def pieces(self) -> list[str]:
        """The pieces of a stream."""
        if not isinstance(self.text, str):
            return list(self.text)
        words = self.text.split(" ")
        return [word if last else f"{word} " for word, last in _with_last(words) if word or not last]

    @property
    def ending(self) -> str:
        return self.finish_reason or ("tool_calls" if self.tool_calls else "stop")

    @property
    def usage(self) -> dict[str, int]:
        total = self.prompt_tokens + self.completion_tokens
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": total,
        }

    def message(self) -> dict[str, Any]:
        """The message of a whole chat answer."""
        message: dict[str, Any] = {"role": "assistant", "content": self.whole}
        if self.reasoning:
            message["reasoning_content"] = self.reasoning
        if self.refusal:
            message |= {"refusal": self.refusal, "content": self.whole or None}
        if self.tool_calls:
            message["tool_calls"] = self.calls()
            message["content"] = self.whole or None
        return message

    def calls(self) -> list[dict[str, Any]]:
        """The tool calls in OpenAI's form."""
        return [
            {
                "index": index,
                "id": f"call_{index}",
                "type": "function",
                "function": {
                    "name": name,
                    "arguments": given if isinstance(given, str) else json.dumps(given),
                },
            }
            for index, (name, given) in enumerate(self.tool_calls)
        ]


@dataclass(frozen=True)
class Refuse:
    """An error in place of an answer."""

    status: int
    message: str = "refused by the test"
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    """Such as `{"Retry-After": "1"}`."""


@dataclass(frozen=True)
class HangUp:
    """Close the connection: at once, or after some pieces of a streamed answer."""

    after: Sequence[str] = ()


@dataclass(frozen=True)
class Stall:
    """Say nothing more, at once or after some pieces of a streamed answer, until the client goes away."""

    after: Sequence[str] = ()


Fault: TypeAlias = Refuse | HangUp | Stall


def _with_last(words: list[str]) -> list[tuple[str, bool]]:
    return [(word, index == len(words) - 1) for index, word in enumerate(words)]
