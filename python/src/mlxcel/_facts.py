"""What `/props` tells of a running server, as typed values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Memory", "Throughput", "memory", "number", "throughput"]


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of a server, in bytes. The last three are MLX's own counts."""

    rss_bytes: int
    """Resident memory of the process."""
    active_bytes: int
    """Held by arrays now."""
    peak_bytes: int
    """The most that arrays ever held."""
    cache_bytes: int
    """Kept for arrays to come."""


@dataclass(frozen=True, slots=True)
class Throughput:
    """Tokens of a server since its start, and per second over the last moments."""

    prompt_tokens_total: int
    generated_tokens_total: int
    prompt_tokens_per_second: float
    generated_tokens_per_second: float


def memory(props: object) -> Memory | None:
    """The memory part; None from a server that does not tell it."""
    values = _part(props, "memory")
    if values is None:
        return None
    return Memory(**{name: int(values.get(name) or 0) for name in Memory.__slots__})


def throughput(props: object) -> Throughput | None:
    """The throughput part; None from a server that does not tell it."""
    values = _part(props, "throughput")
    if values is None:
        return None
    return Throughput(
        int(values.get("prompt_tokens_total") or 0),
        int(values.get("generated_tokens_total") or 0),
        float(values.get("prompt_tokens_per_second") or 0.0),
        float(values.get("generated_tokens_per_second") or 0.0),
    )


def number(props: object, name: str) -> float | None:
    """A number; None from a server that does not tell it."""
    value = props.get(name) if isinstance(props, dict) else None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _part(props: object, name: str) -> dict[str, Any] | None:
    part = props.get(name) if isinstance(props, dict) else None
    return part if isinstance(part, dict) else None
