"""Reads the heads of safetensors files: https://github.com/huggingface/safetensors (format).

Eight bytes of little-endian length, so much JSON, then the tensors' bytes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["DamagedError", "Weights", "read_weights"]

_HEAD_LIMIT = 100_000_000  # bytes, the format's own
_HALF = ("F16", "BF16")


class DamagedError(Exception):
    """A file that is not what its head says."""


@dataclass(frozen=True)
class Weights:
    """Bytes of tensors, and how many of them are half-precision floats."""

    total: int = 0
    half: int = 0

    def __add__(self, other: Weights) -> Weights:
        return Weights(self.total + other.total, self.half + other.half)


def read_weights(path: Path) -> Weights:
    """The sizes that a file's head tells. Raises DamagedError, and OSError when it cannot be read."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or not 0 < length <= min(size - 8, _HEAD_LIMIT):
            raise DamagedError(f"has {size} bytes, and its head does not fit into them")
        raw = file.read(length)
    try:
        head: dict[str, Any] = json.loads(raw)
        tensors = [
            (entry["dtype"], *entry["data_offsets"]) for name, entry in head.items() if name[:2] != "__"
        ]
        end = max((int(stop) for _, _, stop in tensors), default=0)
        weights = Weights(
            sum(stop - start for _, start, stop in tensors),
            sum(stop - start for kind, start, stop in tensors if kind in _HALF),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"has a head that cannot be read ({error})") from error
    whole = 8 + length + end
    if size != whole:
        what = "is cut off" if size < whole else "has bytes too many"
        raise DamagedError(f"{what}: {size} bytes of {whole}")
    return weights
