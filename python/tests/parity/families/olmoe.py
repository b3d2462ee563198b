"""OLMoE: experts in every layer, queries and keys normalized over all heads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlx.core as mx
from checkpoints import VOCAB, Family, mixed
from expert_layouts import DRAWS, unstacked

if TYPE_CHECKING:
    from checkpoints import Recipe

FAMILY = Family(
    {
        "model_type": "olmoe",
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "intermediate_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_experts": 8,
        "num_experts_per_tok": 3,
        "norm_topk_prob": False,
        "rms_norm_eps": 1e-5,
        "vocab_size": VOCAB,
        "max_position_embeddings": 2048,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
    },
    draws=DRAWS,
)

SAMPLE: dict[str, Recipe] = {"transformers layout": FAMILY.transformers(unstacked)}

ALL: dict[str, Recipe] = SAMPLE | {
    "float32": FAMILY.dense(norm_topk_prob=True),
    "tied, 4-bit": FAMILY.quantized(4, dtype=mx.bfloat16, tie_word_embeddings=True),
    "mixed bits": FAMILY.quantized(4, choose=mixed),
}
