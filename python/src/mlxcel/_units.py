"""Sizes and times as people read them."""

from __future__ import annotations

__all__ = ["age", "duration", "size"]


def size(count: float) -> str:
    """Bytes: `812 B`, `1.5 MiB`, `12 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 10 else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.0f} TiB" if count >= 10 else f"{count:.1f} TiB"


def age(seconds: float) -> str:
    """A span of time: `8s`, `3m 5s`, `2h 10m`, `4d 1h`."""
    left = int(seconds)
    parts: list[str] = []
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, length)
        if count or parts or unit == "s":
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2])


def duration(seconds: float) -> str:
    """A measured time: `3.2 ms`, `1.25 s`."""
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
