"""Mamba-2: a state space in every layer, and no attention."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlx.core as mx
from checkpoints import VOCAB, Family, around, saved_by_transformers, taps_last

if TYPE_CHECKING:
    from checkpoints import Config, Recipe, Weights

FAMILY = Family(
    {
        "model_type": "mamba2",
        "hidden_size": 128,
        "num_hidden_layers": 3,
        "intermediate_size": 256,
        "num_heads": 8,
        "head_dim": 32,
        "n_groups": 2,
        "state_size": 24,
        "conv_kernel": 4,
        "use_bias": False,
        "use_conv_bias": True,
        "layer_norm_epsilon": 1e-5,
        "vocab_size": VOCAB,
        "tie_word_embeddings": False,
        "time_step_limit": (0.0, float("inf")),
        "time_step_rank": "auto",
        "hidden_act": "silu",
    },
    draws={
        "*A_log": around(0.5, 0.7),
        "*.D": around(1, 0.3),
        "*conv1d.weight": around(0, 0.6),
        "*embeddings.weight": around(0, 0.2),
    },
)
dense, quantized = FAMILY.dense, FAMILY.quantized


def layout(weights: Weights, config: Config) -> tuple[Weights, Config]:
    return saved_by_transformers(taps_last(weights), config)


SAMPLE: dict[str, Recipe] = {
    "float32": dense(),
    "transformers layout": FAMILY.transformers(layout),
}

ALL: dict[str, Recipe] = SAMPLE | {
    "4-bit": quantized(4, dtype=mx.bfloat16),
    "4-bit tied biases": quantized(4, tie_word_embeddings=True, use_bias=True, use_conv_bias=False),
    "one group, bounded steps": dense(n_groups=1, time_step_limit=(0.1, 1.0)),
    "bfloat16 sharded": dense(mx.bfloat16, shards=3),
}
