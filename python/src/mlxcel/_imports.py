"""Importing the SDK takes longer than starting a small server: what can be saved of it."""

from __future__ import annotations

import contextlib
import gc
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["without_collections"]


@contextlib.contextmanager
def without_collections(module: str) -> Iterator[None]:
    """Around the first import of a large module: no garbage is looked for in what it makes.

    All of it stays, and looking takes an eighth of the SDK's import. What there
    is goes to the oldest generation in the end, as the collections would have
    moved it. Leaves everything as it is where the collector is off, or holds
    frozen objects, which could not be frozen again alone.
    """
    if module in sys.modules or not gc.isenabled() or gc.get_freeze_count():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        # Together they only move: unfreezing puts what was frozen into the oldest generation.
        gc.freeze()
        gc.unfreeze()
        gc.enable()
