"""One file an architecture: its `FAMILY`, the recipes of the `SAMPLE` that `make test` takes, and `ALL`."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from checkpoints import Family, Recipe


def recipes(which: str) -> dict[str, Recipe]:
    """Those of every architecture, by `<file>-<recipe>`; `which` is `SAMPLE` or `ALL`."""
    found: dict[str, Recipe] = {}
    for module in pkgutil.iter_modules(__path__):
        family = importlib.import_module(f"{__name__}.{module.name}")
        found |= {f"{module.name}-{name}": recipe for name, recipe in getattr(family, which).items()}
    return found


def named() -> dict[str, Family]:
    """The `FAMILY` of every file, by its name."""
    modules = [module.name for module in pkgutil.iter_modules(__path__)]
    return {name: importlib.import_module(f"{__name__}.{name}").FAMILY for name in modules}
