"""Granite 4: Mamba-2 with attention between, experts or none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlx.core as mx
from checkpoints import VOCAB, Family, around, saved_by_transformers, taps_last
from expert_layouts import DRAWS

if TYPE_CHECKING:
    from checkpoints import Config, Recipe, Weights

FAMILY = Family(
    {
        "model_type": "granitemoehybrid",
        "hidden_size": 128,
        "num_hidden_layers": 4,
        "intermediate_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "layer_types": ["mamba", "mamba", "attention", "mamba"],
        "num_local_experts": 8,
        "num_experts_per_tok": 3,
        "shared_intermediate_size": 96,
        "mamba_n_heads": 8,
        "mamba_d_head": 32,
        "mamba_proj_bias": False,
        "mamba_d_state": 24,
        "mamba_d_conv": 4,
        "mamba_n_groups": 2,
        "mamba_conv_bias": True,
        "time_step_limit": (0.001, 100.0),
        "position_embedding_type": "nope",
        "attention_bias": False,
        "attention_multiplier": 0.125,
        "embedding_multiplier": 3.0,
        "residual_multiplier": 0.7,
        "logits_scaling": 2.0,
        "rms_norm_eps": 1e-5,
        "vocab_size": VOCAB,
        "max_position_embeddings": 4096,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
    },
    draws=DRAWS | {"*A_log": around(0.5, 0.7), "*.D": around(1, 0.3), "*conv1d.weight": around(0, 0.6)},
)
# What has no experts is one layer of the shared kind.
DENSE: Config = {"num_local_experts": None, "num_experts_per_tok": None, "intermediate_size": 96}


def layout(weights: Weights, config: Config) -> tuple[Weights, Config]:
    weights = taps_last(weights)
    for layer in range(config["num_hidden_layers"]):
        path = f"model.layers.{layer}"
        old, new = (
            (f"{path}.block_sparse_moe.switch_mlp", f"{path}.block_sparse_moe")
            if config["num_local_experts"]
            else (f"{path}.mlp", f"{path}.shared_mlp")
        )
        halves = [weights.pop(f"{old}.{name}.weight") for name in ("gate_proj", "up_proj")]
        weights[f"{new}.input_linear.weight"] = mx.concatenate(halves, axis=-2)
        weights[f"{new}.output_linear.weight"] = weights.pop(f"{old}.down_proj.weight")
    return saved_by_transformers(weights, config)


SAMPLE: dict[str, Recipe] = {
    "transformers layout": FAMILY.transformers(layout),
    "no experts, rope": FAMILY.dense(**DENSE, position_embedding_type="rope", tie_word_embeddings=True),
}

ALL: dict[str, Recipe] = SAMPLE | {
    "float32": FAMILY.dense(),
    "4-bit": FAMILY.quantized(4, 32, dtype=mx.bfloat16, shards=2),
    "no experts, transformers layout": FAMILY.transformers(layout, **DENSE),
}
