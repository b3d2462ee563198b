"""Qwen2 with experts: one of them is for every token."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlx.core as mx
from checkpoints import VOCAB, Family, mixed
from expert_layouts import unstacked

if TYPE_CHECKING:
    from checkpoints import Config, Recipe, Weights

FAMILY = Family(
    {
        "model_type": "qwen2_moe",
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "intermediate_size": 192,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_experts": 8,
        "num_experts_per_tok": 3,
        "moe_intermediate_size": 64,
        "shared_expert_intermediate_size": 128,
        "rms_norm_eps": 1e-6,
        "vocab_size": VOCAB,
        "max_position_embeddings": 2048,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
    }
)


def layout(weights: Weights, config: Config) -> tuple[Weights, Config]:
    weights, config = unstacked(weights, config)
    extra = {
        "norm_topk_prob": False,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "use_sliding_window": False,
    }
    return weights, config | extra


SAMPLE: dict[str, Recipe] = {"transformers layout": FAMILY.transformers(layout)}

ALL: dict[str, Recipe] = SAMPLE | {
    "float32": FAMILY.dense(),
    "4-bit": FAMILY.quantized(4, dtype=mx.bfloat16, shards=2),
    "mixed bits": FAMILY.quantized(4, choose=mixed),
}
