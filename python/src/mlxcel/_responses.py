"""How a reply is read: pure functions from the SDK's objects to results.

The SDK builds its objects without validating them, so that a reply of
another server may lack anything; each lack is a MlxcelResponseError.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._fields import item, items, text
from ._measures import timings_of, usage_of
from ._reply import Reply
from ._tool_calls import tool_calls_of
from ._tool_prompt import finish_of, split
from .errors import MlxcelResponseError
from .results import Result

if TYPE_CHECKING:
    from collections.abc import Iterable

    import httpx2
    from openai.types import Model

__all__ = ["chat", "check_stream", "completion", "model_ids", "models", "slots_of", "text_of", "tokens_of"]


def check_stream(response: httpx2.Response) -> None:
    """Refuse at once what is not a stream of events, such as a page of HTML or a whole reply."""
    kind = response.headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() != "text/event-stream":
        raise MlxcelResponseError(
            f"a stream was asked for, and the reply is {kind or 'of no content type'}: "
            "is this an OpenAI-compatible server that can stream?"
        )


def completion(reply: Any) -> Result:
    """A result from the reply of `/v1/completions`."""
    reply = _with_logprobs(reply)
    results = []
    for choice in _choices(reply):
        written = item(choice, "text")
        if not isinstance(written, str):
            raise MlxcelResponseError("the reply has a choice without text")
        results.append(_result(reply, choice, written, finish_reason=item(choice, "finish_reason")))
    return results[0].with_others(results[1:])


def chat(reply: Any, *, prompt_calls: bool = False) -> Result:
    """A result from the reply of `/v1/chat/completions`; `prompt_calls`: see `_tool_prompt`."""
    reply = _with_logprobs(reply)
    results = []
    for choice in _choices(reply):
        message = item(choice, "message")
        if message is None:
            raise MlxcelResponseError("the reply has a choice without a message")
        written, calls = text(message, "content"), tool_calls_of(items(message, "tool_calls"))
        ended = item(choice, "finish_reason")
        if prompt_calls:
            written, calls = split(written)
            ended = finish_of(ended, calls)
        results.append(
            _result(
                reply,
                choice,
                written,
                finish_reason=ended,
                reasoning=text(message, "reasoning_content") or text(message, "reasoning") or None,
                refusal=text(message, "refusal") or None,
                tool_calls=calls,
            )
        )
    return results[0].with_others(results[1:])


def tokens_of(body: object) -> list[int]:
    """Token ids from the reply of the native `/tokenize`."""
    tokens = body.get("tokens") if isinstance(body, dict) else None
    if not isinstance(tokens, list) or not all(isinstance(token, int) for token in tokens):
        raise MlxcelResponseError("the reply of /tokenize has no list of token ids in 'tokens'")
    return tokens


def text_of(body: object) -> str:
    """Text from the reply of the native `/detokenize`."""
    content = body.get("content") if isinstance(body, dict) else None
    if not isinstance(content, str):
        raise MlxcelResponseError("the reply of /detokenize has no text in 'content'")
    return content


def slots_of(body: object) -> int | None:
    """Requests that a server computes side by side, from the native `/props`; None where it does not tell."""
    slots = body.get("total_slots") if isinstance(body, dict) else None
    return slots if isinstance(slots, int) and not isinstance(slots, bool) and slots > 0 else None


def model_ids(models: Iterable[Model]) -> list[str]:
    """Ids from `/v1/models`."""
    return [model.id for model in models if isinstance(getattr(model, "id", None), str)]


def _with_logprobs(reply: Any) -> Any:
    """The reply as the SDK's object where results show parts of it as they are: the logprobs."""
    if isinstance(reply, Reply) and any(item(choice, "logprobs") for choice in items(reply, "choices")):
        return reply.as_sdk_object()
    return reply


def _choices(reply: Any) -> list[Any]:
    if isinstance(reply, str):
        raise MlxcelResponseError(
            f"the reply is not JSON but begins {reply[:80]!r}: is this an OpenAI-compatible server?"
        )
    choices = items(reply, "choices")
    if not choices:
        raise MlxcelResponseError("the reply has no choices")
    return choices


def _result(reply: Any, choice: Any, written: str, **more: Any) -> Result:
    return Result(
        written,
        usage=usage_of(reply),
        timings=timings_of(reply),
        logprobs=item(choice, "logprobs"),
        raw=reply,
        **more,
    )


def models(body: object) -> list[Model]:
    """The SDK's model objects from the reply of `/v1/models`."""
    from openai.types import Model

    entries = body.get("data") if isinstance(body, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise MlxcelResponseError(
            "the reply of /v1/models is not a list of models: is this an OpenAI-compatible server?"
        )
    return [Model.construct(**entry) for entry in entries]
