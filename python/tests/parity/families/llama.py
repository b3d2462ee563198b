"""Llama: the one that also tries every packing, since they are the same everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlx.core as mx
from checkpoints import VOCAB, Family, mixed, saved_by_transformers

if TYPE_CHECKING:
    from checkpoints import Config, Recipe, Weights

FAMILY = Family(
    {
        "model_type": "llama",
        "hidden_size": 128,
        "num_hidden_layers": 3,
        "intermediate_size": 256,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5,
        "vocab_size": VOCAB,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": False,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
    }
)
dense, quantized = FAMILY.dense, FAMILY.quantized

LLAMA3_ROPE: Config = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 256,
}


def layout(weights: Weights, config: Config) -> tuple[Weights, Config]:
    """With the frequencies and the second copy of the embeddings that older versions wrote as well."""
    weights, config = saved_by_transformers(weights, config)
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    for layer in range(config["num_hidden_layers"]):
        weights[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = mx.ones((16,))
    rope = {"rope_theta": config.pop("rope_theta"), "rope_type": "default"}
    return weights, config | {"rope_parameters": rope, "head_dim": 32, "pretraining_tp": 1}


SAMPLE: dict[str, Recipe] = {
    "float32": dense(),
    "bfloat16 sharded": dense(mx.bfloat16, shards=3),
    "transformers layout": FAMILY.transformers(layout, tie_word_embeddings=True),
    "4-bit": quantized(4, dtype=mx.bfloat16, tie_word_embeddings=True),
    "mixed bits": quantized(4, choose=mixed),
    "llama3 rope": dense(rope_theta=500000.0, rope_scaling=LLAMA3_ROPE, tie_word_embeddings=True),
    "biases": dense(attention_bias=True, mlp_bias=True),
}

ALL: dict[str, Recipe] = SAMPLE | {
    "float16": dense(mx.float16),
    "tied": dense(tie_word_embeddings=True),
    "mistral": dense(model_type="mistral", sliding_window=None),
    "linear rope": dense(rope_scaling={"type": "linear", "factor": 4.0}),
    "traditional rope": dense(rope_traditional=True),
    "head_dim": dense(head_dim=64),
    "one key head": dense(num_key_value_heads=1),
    "4-bit float32": quantized(4),
    "4-bit float16": quantized(4, dtype=mx.float16),
    "4-bit biases": quantized(4, attention_bias=True, mlp_bias=True),
    "2-bit": quantized(2, 32),
    "3-bit": quantized(3),
    "5-bit": quantized(5),
    "6-bit": quantized(6),
    "8-bit": quantized(8, 128),
    "8-bit bfloat16": quantized(8, 32, mx.bfloat16, tie_word_embeddings=True),
}
