"""What families with experts share: weights that spread, and transformers' layout, an expert by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checkpoints import by_fan_in, saved_by_transformers

if TYPE_CHECKING:
    from checkpoints import Config, Weights

# Spread enough that greedy text does not settle on a few tokens.
DRAWS = {"*_proj.weight": by_fan_in(2.5)}

SAME = {name: name for name in ("gate_proj", "up_proj", "down_proj")}


def unstacked(weights: Weights, config: Config, names: dict[str, str] = SAME) -> tuple[Weights, Config]:
    """`….switch_mlp.{name}.weight` as `….experts.{e}.{names[name]}.weight`."""
    apart: Weights = {}
    for path, value in weights.items():
        block, found, rest = path.partition(".switch_mlp.")
        if not found:
            apart[path] = value
            continue
        name, _, kind = rest.partition(".")
        for expert in range(value.shape[0]):
            apart[f"{block}.experts.{expert}.{names[name]}.{kind}"] = value[expert]
    return saved_by_transformers(apart, config)
