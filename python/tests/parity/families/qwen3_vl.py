"""Qwen3-VL: Qwen3 within a checkpoint that sees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlx.core as mx
from checkpoints import Family, saved_by_transformers

from families import qwen3

if TYPE_CHECKING:
    from checkpoints import Config, Recipe, Weights

# As text it has one position for all three.
MROPE = {"rope_type": "default", "mrope_section": [16, 8, 8], "mrope_interleaved": True}
TEXT = {**qwen3.FAMILY.config, "model_type": "qwen3_vl_text", "rope_scaling": MROPE}

FAMILY = Family({"model_type": "qwen3_vl", "text_config": TEXT})


def layout(weights: Weights, config: Config) -> tuple[Weights, Config]:
    """With what sees, and the language model beside it; it is the whole that says whether a head is tied."""
    weights = {
        name.replace("language_model.model.", "model.language_model.").removeprefix("language_model."): value
        for name, value in weights.items()
    }
    weights["model.visual.blocks.0.norm1.weight"] = mx.ones((32,))
    weights, config = saved_by_transformers(weights, config)
    return weights, config | {"tie_word_embeddings": False, "vision_config": {"depth": 1}}


SAMPLE: dict[str, Recipe] = {"transformers layout": FAMILY.transformers(layout)}

ALL: dict[str, Recipe] = SAMPLE | {"4-bit": FAMILY.quantized(4, dtype=mx.bfloat16)}
