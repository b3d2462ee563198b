"""What of a conversation is sent when all of it is too long for the model. Pure.

The rule: the oldest turns go first, a turn being a message of the user and
all that follows it up to the next, so that calls and their results stay
together; messages of the system or developer, and the last turn, never go.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

__all__ = ["budget_of", "context_of", "surely_fits", "window"]

_ANSWER = 1024
"""Tokens that are kept free for an answer without `max_tokens`, if that is no more than a quarter of all."""
_FRAME, _FRAME_OF_MESSAGE = 512, 32
"""Tokens that a template may add to a conversation, and to each message; on the safe side."""


def context_of(props: Mapping[str, Any]) -> int | None:
    """The most tokens of one request, prompt and answer, from `/props`; None where it does not say."""
    settings = props.get("default_generation_settings")
    for place in (settings, props):
        found = place.get("n_ctx") if isinstance(place, dict) else None
        if isinstance(found, int) and found > 0:
            return found
    return None


def budget_of(context: int, params: Mapping[str, Any]) -> int:
    """The most tokens of the prompt, so that there is room for the answer."""
    asked = params.get("max_completion_tokens") or params.get("max_tokens")
    return context - (asked if isinstance(asked, int) else min(_ANSWER, context // 4))


def surely_fits(messages: Sequence[Mapping[str, Any]], tools: Sequence[Any], budget: int) -> bool:
    """Whether counting is needless: no token is shorter than a byte."""
    size = len(json.dumps([list(messages), list(tools)], default=str, ensure_ascii=False).encode())
    return size + _FRAME + _FRAME_OF_MESSAGE * len(messages) <= budget


def window(
    messages: Sequence[dict[str, Any]], budget: int
) -> Generator[list[dict[str, Any]], int, list[dict[str, Any]]]:
    """What to send of a conversation: yields parts of it, is sent how many tokens they have.

    Drops no more turns than it must, and all but the last where even that is too long.
    """
    starts = [at for at, message in enumerate(messages) if message.get("role") == "user"]
    if len(starts) < 2:
        return list(messages)
    fewest, most = 0, len(starts) - 1  # turns to drop

    if (yield _without(messages, starts[fewest])) <= budget:
        return list(messages)
    while most - fewest > 1:
        middle = (fewest + most) // 2
        if (yield _without(messages, starts[middle])) <= budget:
            most = middle
        else:
            fewest = middle
    return _without(messages, starts[most])


def _without(messages: Sequence[dict[str, Any]], start: int) -> list[dict[str, Any]]:
    """The conversation from a turn on, and what always stays."""
    kept = [message for message in messages[:start] if message.get("role") in ("system", "developer")]
    return [*kept, *messages[start:]]
