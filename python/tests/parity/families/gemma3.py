"""Gemma 3 with images: the language model within it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlx.core as mx
from checkpoints import VOCAB, Family, mixed, saved_by_transformers

from families import gemma3_text

if TYPE_CHECKING:
    from checkpoints import Config, Recipe, Weights

FAMILY = Family(
    {
        "model_type": "gemma3",
        "vocab_size": VOCAB,
        "text_config": {**gemma3_text.FAMILY.config, "model_type": "gemma3_text"},
        "vision_config": {"model_type": "siglip_vision_model", "hidden_size": 64},
    },
    gemma3_text.FAMILY.draws,
)


def layout(weights: Weights, config: Config) -> tuple[Weights, Config]:
    """With the images' weights, which nobody reads here; its embeddings are always tied."""
    del weights["language_model.lm_head.weight"]
    for name in (
        "vision_tower.vision_model.post_layernorm.weight",
        "multi_modal_projector.mm_soft_emb_norm.weight",
    ):
        weights[name] = mx.ones((64,))
    return saved_by_transformers(weights, config)


SAMPLE: dict[str, Recipe] = {"transformers layout": FAMILY.transformers(layout)}
ALL: dict[str, Recipe] = SAMPLE | {"mixed bits": FAMILY.quantized(4, choose=mixed)}
