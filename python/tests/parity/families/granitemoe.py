"""Granite with experts: multipliers, and experts whose gate and rest lie in one tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlx.core as mx
from checkpoints import VOCAB, Family, mixed, saved_by_transformers

if TYPE_CHECKING:
    from checkpoints import Config, Recipe, Weights

FAMILY = Family(
    {
        "model_type": "granitemoe",
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "intermediate_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_local_experts": 8,
        "num_experts_per_tok": 3,
        "attention_bias": False,
        "attention_multiplier": 0.125,
        "embedding_multiplier": 3.0,
        "residual_multiplier": 0.7,
        "logits_scaling": 2.0,
        "rms_norm_eps": 1e-5,
        "vocab_size": VOCAB,
        "max_position_embeddings": 2048,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
    }
)


def layout(weights: Weights, config: Config) -> tuple[Weights, Config]:
    for layer in range(config["num_hidden_layers"]):
        moe = f"model.layers.{layer}.block_sparse_moe"
        halves = [weights.pop(f"{moe}.switch_mlp.{name}.weight") for name in ("gate_proj", "up_proj")]
        weights[f"{moe}.input_linear.weight"] = mx.concatenate(halves, axis=1)
        weights[f"{moe}.output_linear.weight"] = weights.pop(f"{moe}.switch_mlp.down_proj.weight")
    return saved_by_transformers(weights, config)


SAMPLE: dict[str, Recipe] = {"transformers layout": FAMILY.transformers(layout)}

ALL: dict[str, Recipe] = SAMPLE | {
    "float32": FAMILY.dense(),
    "4-bit": FAMILY.quantized(4, dtype=mx.bfloat16, shards=2),
    "mixed bits": FAMILY.quantized(4, choose=mixed),
}
