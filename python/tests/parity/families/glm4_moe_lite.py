"""GLM-4.7-Flash: DeepSeek-V3 under a name of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checkpoints import Family

from families import deepseek_v3

if TYPE_CHECKING:
    from checkpoints import Config, Recipe, Weights

OWN: Config = {
    "model_type": "glm4_moe_lite",
    "n_group": 1,
    "topk_group": 1,
    "partial_rotary_factor": 1.0,
    "rope_scaling": None,
    "routed_scaling_factor": 1.8,
}

FAMILY = Family(deepseek_v3.FAMILY.config | OWN, deepseek_v3.FAMILY.draws)


def layout(weights: Weights, config: Config) -> tuple[Weights, Config]:
    """DeepSeek-V3's, without what mlx-lm discards there only."""
    weights, config = deepseek_v3.layout(weights, config)
    return {name: value for name, value in weights.items() if not name.endswith("inv_freq")}, config


SAMPLE: dict[str, Recipe] = {"transformers layout": FAMILY.transformers(layout)}

ALL: dict[str, Recipe] = SAMPLE | {"4-bit": FAMILY.quantized(4, 32)}
