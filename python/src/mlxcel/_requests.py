"""What a request looks like: pure functions from a caller's parameters to the SDK's arguments.

The SDK's `create` takes OpenAI's fields as arguments and everything else in
`extra_body`, which it merges into the body last. So `temperature` goes to the
top level, while `top_k`, `min_p`, `repetition_penalty`, `typical_p`, `xtc_*`,
`dry_*` and any name not known here travel in `extra_body`; what the caller
puts there wins over everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from ._spelling import warn_of_a_slip

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

__all__ = [
    "CHAT_FIELDS",
    "COMPLETION_FIELDS",
    "Conversations",
    "Message",
    "Messages",
    "Prompt",
    "Prompts",
    "chat",
    "completion",
    "conversation",
    "tokenize",
]

Prompt: TypeAlias = "str | Sequence[int]"
"""Text, or token ids."""

Message: TypeAlias = "Mapping[str, Any]"
"""A chat message in OpenAI's form: `{"role": …, "content": …}`."""

Messages: TypeAlias = "str | Sequence[Message]"
"""A conversation; a string is one message of the user."""

Prompts: TypeAlias = "Sequence[Prompt] | Iterator[Prompt] | AsyncIterator[Prompt]"
"""Many prompts; async iterators are for `AsyncLLM`."""

Conversations: TypeAlias = "Sequence[Messages] | Iterator[Messages] | AsyncIterator[Messages]"
"""Many conversations; async iterators are for `AsyncLLM`."""

_CALL_OPTIONS = frozenset({"extra_headers", "extra_query"})
"""Options of the call, not of the body."""

COMPLETION_FIELDS = frozenset(
    {
        "best_of",
        "echo",
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "max_tokens",
        "n",
        "presence_penalty",
        "seed",
        "stop",
        "stream_options",
        "suffix",
        "temperature",
        "top_p",
        "user",
    }
)
"""Arguments of the SDK's `completions.create`."""

CHAT_FIELDS = frozenset(
    {
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "metadata",
        "n",
        "parallel_tool_calls",
        "presence_penalty",
        "reasoning_effort",
        "response_format",
        "seed",
        "stop",
        "stream_options",
        "temperature",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "user",
    }
)
"""Arguments of the SDK's `chat.completions.create`."""


def completion(prompt: Prompt, model: str, params: Mapping[str, Any], *, stream: bool) -> dict[str, Any]:
    """Arguments for `completions.create`."""
    if not isinstance(prompt, str):
        if not _are_tokens(prompt):
            raise TypeError("a prompt is a string or a list of token ids")
        prompt = list(prompt)
    return {"model": model, "prompt": prompt, **_body(params, COMPLETION_FIELDS, stream=stream)}


def chat(messages: Messages, model: str, params: Mapping[str, Any], *, stream: bool) -> dict[str, Any]:
    """Arguments for `chat.completions.create`."""
    return {
        "model": model,
        "messages": conversation(messages),
        **_body(params, CHAT_FIELDS, stream=stream),
    }


def conversation(messages: Messages) -> list[dict[str, Any]]:
    """The messages, each a dict of its own; a string is one of the user."""
    if isinstance(messages, str):
        return [{"role": "user", "content": messages}]
    return [dict(message) for message in _checked(messages)]


def tokenize(text: str, *, add_special: bool) -> dict[str, Any]:
    """Body of the native `/tokenize`."""
    return {"content": text, "add_special": add_special}


def detokenize(tokens: Iterable[int]) -> dict[str, Any]:
    """Body of the native `/detokenize`."""
    return {"tokens": list(tokens)}


def _are_tokens(prompt: object) -> bool:
    if isinstance(prompt, bytes) or not isinstance(prompt, Iterable):
        return False
    return all(isinstance(token, int) for token in prompt)


def _checked(messages: Iterable[Message]) -> Iterable[Message]:
    if isinstance(messages, Mapping) or not isinstance(messages, Iterable):
        raise TypeError(f"a conversation is a string or a list of messages, not a {type(messages).__name__}")
    for message in messages:
        if not hasattr(message, "keys"):
            raise TypeError(
                f"a conversation is a string or a list of messages like "
                f"{{'role': 'user', 'content': '…'}}, not of {type(message).__name__}"
            )
        yield message


def _body(params: Mapping[str, Any], fields: frozenset[str], *, stream: bool) -> dict[str, Any]:
    top: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for name, value in params.items():
        if name in _CALL_OPTIONS:
            top[name] = value
        elif name in ("extra_body", "model") or value is None:
            continue  # None leaves a field to the server
        elif name in ("stream", "prompt", "messages"):
            raise TypeError(_misplaced(name))
        elif name in fields:
            top[name] = value
        else:
            warn_of_a_slip(name, fields)
            extra[name] = value
    extra.update(params.get("extra_body") or {})
    if extra:
        top["extra_body"] = extra
    if stream:
        top["stream"] = True
        # Without it a stream ends without its usage.
        top.setdefault("stream_options", {"include_usage": True})
    return top


def _misplaced(name: str) -> str:
    if name == "stream":
        return "generate and chat answer at once: call stream() or chat_stream() for a stream"
    return f"{name} is the first argument"
