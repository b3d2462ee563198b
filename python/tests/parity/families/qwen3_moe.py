"""Qwen3 with experts, which also tries every packing of experts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlx.core as mx
from checkpoints import VOCAB, Family, mixed
from expert_layouts import DRAWS, unstacked

if TYPE_CHECKING:
    from checkpoints import Config, Recipe, Weights

FAMILY = Family(
    {
        "model_type": "qwen3_moe",
        "hidden_size": 128,
        "num_hidden_layers": 3,
        "intermediate_size": 192,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "num_experts": 8,
        "num_experts_per_tok": 3,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [1],
        "moe_intermediate_size": 64,
        "norm_topk_prob": True,
        "rms_norm_eps": 1e-6,
        "vocab_size": VOCAB,
        "max_position_embeddings": 2048,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
    },
    draws=DRAWS,
)
quantized = FAMILY.quantized


def layout(weights: Weights, config: Config) -> tuple[Weights, Config]:
    weights, config = unstacked(weights, config)
    extra = {
        "hidden_act": "silu",
        "use_sliding_window": False,
        "sliding_window": None,
        "attention_bias": False,
    }
    return weights, config | extra


SAMPLE: dict[str, Recipe] = {
    "transformers layout": FAMILY.transformers(layout),
    "4-bit": quantized(4, dtype=mx.bfloat16, tie_word_embeddings=True),
    "nvfp4": quantized(4, 16, mode="nvfp4"),
    "mxfp8": quantized(8, 32, mx.bfloat16, mode="mxfp8"),
}

ALL: dict[str, Recipe] = SAMPLE | {
    "float32 sharded": FAMILY.dense(shards=3),
    "weights as they are": FAMILY.dense(norm_topk_prob=False, decoder_sparse_step=2, mlp_only_layers=[]),
    "mixed bits": quantized(4, choose=mixed),
    "one expert": FAMILY.dense(num_experts_per_tok=1),
    "mxfp4": quantized(4, 32, mode="mxfp4", tie_word_embeddings=True),
    **{f"{bits}-bit": quantized(bits) for bits in (2, 3, 5, 6, 8)},
}
