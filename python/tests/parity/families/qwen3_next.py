"""Qwen3-Next: gated delta networks, gated attention and experts, one of them for every token."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlx.core as mx
from checkpoints import VOCAB, Family, around, norms_less_one, taps_last
from expert_layouts import DRAWS, unstacked

if TYPE_CHECKING:
    from checkpoints import Config, Recipe, Weights

FAMILY = Family(
    {
        "model_type": "qwen3_next",
        "hidden_size": 128,
        "num_hidden_layers": 4,
        "intermediate_size": 192,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "linear_num_value_heads": 4,
        "linear_num_key_heads": 2,
        "linear_key_head_dim": 24,
        "linear_value_head_dim": 32,
        "linear_conv_kernel_dim": 4,
        "num_experts": 8,
        "num_experts_per_tok": 3,
        "decoder_sparse_step": 1,
        "shared_expert_intermediate_size": 64,
        "mlp_only_layers": [1],
        "moe_intermediate_size": 64,
        "norm_topk_prob": True,
        "rms_norm_eps": 1e-6,
        "vocab_size": VOCAB,
        "max_position_embeddings": 4096,
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.25,
        "tie_word_embeddings": False,
    },
    draws=DRAWS | {"*A_log": around(0.5, 0.7), "*conv1d.weight": around(0, 0.6)},
)


def layout(weights: Weights, config: Config) -> tuple[Weights, Config]:
    """With the head that predicts further tokens."""
    weights, config = unstacked(norms_less_one(taps_last(weights)), config)
    return weights | {"mtp.norm.weight": mx.ones((128,))}, config


SAMPLE: dict[str, Recipe] = {"transformers layout": FAMILY.transformers(layout)}

ALL: dict[str, Recipe] = SAMPLE | {
    "float32": FAMILY.dense(),
    "4-bit": FAMILY.quantized(4, dtype=mx.bfloat16, shards=2),
    "a key head for each value head": FAMILY.dense(linear_num_value_heads=2),
    "tied, weights as they are": FAMILY.dense(tie_word_embeddings=True, norm_topk_prob=False),
}
