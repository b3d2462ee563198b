"""What a server tells of the work for an answer: token counts and times. Pure readers of foreign objects."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ._fields import item

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Timings", "Usage", "timings_of", "usage_of"]


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of a whole request, all its choices together. Two of them add up with `+`."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int | None = None
    """Tokens of the prompt that the server had computed before; None where it does not say."""
    reasoning_tokens: int | None = None
    """Those of the completion's that went into the reasoning; None where the server does not say."""

    def __add__(self, other: Usage) -> Usage:
        if not isinstance(other, Usage):
            return NotImplemented
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.total_tokens + other.total_tokens,
            _sum(self.cached_tokens, other.cached_tokens),
            _sum(self.reasoning_tokens, other.reasoning_tokens),
        )


@dataclass(frozen=True, slots=True)
class Timings:
    """How long an answer took, as the server measured it; None for what it did not tell."""

    ttft: float | None = None
    """Seconds from the request to the first token: the wait for a free slot, and the prompt."""
    prefill_tokens_per_second: float | None = None
    """Of the prompt, without what was cached."""
    decode_tokens_per_second: float | None = None
    """Of the answer, while it was written."""
    raw: Mapping[str, Any] = field(default_factory=dict)
    """All that the server sent, under its own names."""


def usage_of(reply: Any) -> Usage | None:
    """The `usage` of a reply or a chunk in OpenAI's form."""
    usage = item(reply, "usage")
    if usage is None:
        return None
    prompt = _count(usage, "prompt_tokens") or 0
    completion = _count(usage, "completion_tokens") or 0
    total = _count(usage, "total_tokens")
    return Usage(
        prompt,
        completion,
        prompt + completion if total is None else total,
        _count(item(usage, "prompt_tokens_details"), "cached_tokens"),
        _count(item(usage, "completion_tokens_details"), "reasoning_tokens"),
    )


def timings_of(reply: Any) -> Timings | None:
    """The `timings` of a reply or a chunk in llama-server's form, to which ours adds `queued_ms`."""
    raw = item(reply, "timings")
    if not isinstance(raw, dict):
        return None
    prompt = _measure(raw, "prompt_ms")
    return Timings(
        None if prompt is None else (prompt + (_measure(raw, "queued_ms") or 0.0)) / 1000,
        _measure(raw, "prompt_per_second"),
        _measure(raw, "predicted_per_second"),
        dict(raw),
    )


def _count(thing: Any, name: str) -> int | None:
    value = item(thing, name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _measure(raw: Mapping[str, Any], name: str) -> float | None:
    value = raw.get(name)
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if known and value is not None else None


def _sum(one: int | None, other: int | None) -> int | None:
    return one if other is None else (one or 0) + other
