"""Mistral 3 with images: Ministral 3 or Mistral within it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlx.core as mx
from checkpoints import Family, mixed, saved_by_transformers

from families import llama, ministral3

if TYPE_CHECKING:
    from checkpoints import Config, Recipe, Weights

FAMILY = Family(
    {
        "model_type": "mistral3",
        "text_config": ministral3.FAMILY.config,
        "vision_config": {"model_type": "pixtral", "hidden_size": 64},
    }
)


def layout(weights: Weights, config: Config) -> tuple[Weights, Config]:
    """The names of transformers 5, with the images' weights, which nobody reads here."""
    named = {
        name.replace("language_model.model.", "model.language_model.").replace(
            "language_model.lm_head", "lm_head"
        ): value
        for name, value in weights.items()
    }
    for name in ("model.vision_tower.ln_pre.weight", "model.multi_modal_projector.norm.weight"):
        named[name] = mx.ones((64,))
    return saved_by_transformers(named, config)


SAMPLE: dict[str, Recipe] = {"transformers layout": FAMILY.transformers(layout)}
ALL: dict[str, Recipe] = SAMPLE | {
    "mixed bits": FAMILY.quantized(4, choose=mixed),
    "mistral": FAMILY.dense(text_config={**llama.FAMILY.config, "model_type": "mistral"}),
}
