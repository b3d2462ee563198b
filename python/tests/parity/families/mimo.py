"""MiMo: Qwen2's shape, and layers that predict further tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlx.core as mx
from checkpoints import VOCAB, Family, saved_by_transformers, usual

if TYPE_CHECKING:
    from checkpoints import Config, Weights

FAMILY = Family(
    {
        "model_type": "mimo",
        "hidden_size": 128,
        "num_hidden_layers": 3,
        "intermediate_size": 256,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": VOCAB,
        "max_position_embeddings": 2048,
        "rope_theta": 10000.0,
        "rms_norm_eps": 1e-5,
        "num_nextn_predict_layers": 1,
        "tie_word_embeddings": False,
    }
)


def layout(weights: Weights, config: Config) -> tuple[Weights, Config]:
    """With a layer that predicts the token after the next."""
    weights["model.mtp_layers.0.input_layernorm.weight"] = mx.ones((128,))
    return saved_by_transformers(weights, config)


SAMPLE, ALL = usual(FAMILY, layout, tie_word_embeddings=True)
