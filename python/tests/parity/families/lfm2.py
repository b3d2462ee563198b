"""LFM2: short convolutions, and attention in some layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlx.core as mx
from checkpoints import VOCAB, Family, around, saved_by_transformers, taps_last

if TYPE_CHECKING:
    from checkpoints import Config, Recipe, Weights

FAMILY = Family(
    {
        "model_type": "lfm2",
        "hidden_size": 128,
        "num_hidden_layers": 5,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "norm_eps": 1e-5,
        "conv_bias": False,
        "conv_L_cache": 3,
        "block_dim": 128,
        "block_ff_dim": 300,
        "block_multiple_of": 64,
        "block_ffn_dim_multiplier": 1.0,
        "block_auto_adjust_ff_dim": True,
        "vocab_size": VOCAB,
        "max_position_embeddings": 2048,
        "rope_theta": 10000.0,
        "full_attn_idxs": [2, 4],
    },
    draws={"*conv.conv.weight": around(0, 0.8)},
)
dense, quantized = FAMILY.dense, FAMILY.quantized

TYPES = ["conv", "full_attention", "conv", "conv", "full_attention"]


def layout(weights: Weights, config: Config) -> tuple[Weights, Config]:
    """Newer: the layers by their types, the rope's settings in one place."""
    weights, config = saved_by_transformers(taps_last(weights), config)
    rope = {"rope_theta": config.pop("rope_theta"), "rope_type": "default"}
    return weights, config | {"rope_parameters": rope}


SAMPLE: dict[str, Recipe] = {
    "4-bit": quantized(4, dtype=mx.bfloat16),
    "transformers layout": FAMILY.transformers(layout, full_attn_idxs=None, layer_types=TYPES),
}

ALL: dict[str, Recipe] = SAMPLE | {
    "float32": dense(),
    "biases, plain inner size": dense(
        conv_bias=True, block_auto_adjust_ff_dim=False, block_ff_dim=None, intermediate_size=192
    ),
    "sharded": dense(mx.bfloat16, shards=3),
}
