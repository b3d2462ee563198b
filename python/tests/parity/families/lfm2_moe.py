"""LFM2's mixtures of experts: sigmoids, and a correction that chooses only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlx.core as mx
from checkpoints import VOCAB, Family, around, taps_last
from expert_layouts import DRAWS, unstacked

if TYPE_CHECKING:
    from checkpoints import Config, Recipe, Weights

FAMILY = Family(
    {
        "model_type": "lfm2_moe",
        "hidden_size": 128,
        "num_hidden_layers": 4,
        "intermediate_size": 192,
        "moe_intermediate_size": 64,
        "num_experts": 8,
        "num_experts_per_tok": 3,
        "num_dense_layers": 1,
        "norm_topk_prob": True,
        "use_expert_bias": True,
        "routed_scaling_factor": 1.5,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "norm_eps": 1e-5,
        "conv_bias": False,
        "conv_L_cache": 3,
        "vocab_size": VOCAB,
        "max_position_embeddings": 2048,
        "rope_theta": 10000.0,
        "layer_types": ["conv", "full_attention", "conv", "full_attention"],
    },
    draws={"*conv.conv.weight": around(0, 0.8), "*_layernorm.weight": around(2, 0.3), **DRAWS},
)

NAMES = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}


def layout(weights: Weights, config: Config) -> tuple[Weights, Config]:
    """Convolutions turned, and the products of dense layers under the names of those of experts."""
    weights, config = unstacked(taps_last(weights), config, NAMES)
    renamed: Weights = {}
    for path, value in weights.items():
        block, _, name = path.partition(".feed_forward.")
        named = NAMES.get(name.removesuffix(".weight"))
        renamed[f"{block}.feed_forward.{named}.weight" if named else path] = value
    return renamed, config


SAMPLE: dict[str, Recipe] = {"transformers layout": FAMILY.transformers(layout)}

ALL: dict[str, Recipe] = SAMPLE | {
    "float32": FAMILY.dense(norm_topk_prob=False, use_expert_bias=False),
    "4-bit": FAMILY.quantized(4, dtype=mx.bfloat16, shards=2),
}
