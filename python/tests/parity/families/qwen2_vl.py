"""Qwen2-VL: Qwen2, whose fields stand in the file itself or in a part of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlx.core as mx
from checkpoints import Family, saved_by_transformers

from families import qwen2

if TYPE_CHECKING:
    from checkpoints import Config, Recipe, Weights

MROPE = {"type": "mrope", "mrope_section": [4, 6, 6]}

FAMILY = Family({**qwen2.FAMILY.config, "model_type": "qwen2_vl", "rope_scaling": MROPE})


def layout(weights: Weights, config: Config) -> tuple[Weights, Config]:
    """As the first ones were saved: the language model's names, and what sees beside it."""
    weights = {name.removeprefix("language_model."): value for name, value in weights.items()}
    weights["visual.patch_embed.proj.weight"] = mx.ones((8, 3, 2, 4, 4))
    weights, config = saved_by_transformers(weights, config)
    return weights, config | {"vision_config": {"depth": 1}, "use_sliding_window": False}


SAMPLE: dict[str, Recipe] = {"transformers layout": FAMILY.transformers(layout)}

ALL: dict[str, Recipe] = SAMPLE | {
    "4-bit": FAMILY.quantized(4, dtype=mx.bfloat16),
    "part of a file": Family(
        {"model_type": "qwen2_5_vl", "text_config": {**qwen2.FAMILY.config, "rope_scaling": MROPE}}
    ).quantized(4),
}
