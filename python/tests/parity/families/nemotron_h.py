"""Nemotron-H: layers of a single half each, Mamba-2, attention without positions, feed-forward or experts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlx.core as mx
from checkpoints import VOCAB, Family, around, saved_by_transformers, taps_last
from expert_layouts import DRAWS

if TYPE_CHECKING:
    from checkpoints import Config, Recipe, Weights

FAMILY = Family(
    {
        "model_type": "nemotron_h",
        "hidden_size": 128,
        "intermediate_size": 192,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "attention_bias": False,
        "mamba_num_heads": 8,
        "mamba_head_dim": 32,
        "mamba_proj_bias": False,
        "ssm_state_size": 24,
        "conv_kernel": 4,
        "n_groups": 2,
        "mlp_bias": False,
        "use_bias": False,
        "use_conv_bias": True,
        "layer_norm_epsilon": 1e-5,
        "hybrid_override_pattern": "M-M*-ME",
        "num_hidden_layers": 7,
        "n_routed_experts": 8,
        "n_shared_experts": 1,
        "num_experts_per_tok": 3,
        "n_group": 1,
        "topk_group": 1,
        "norm_topk_prob": True,
        "routed_scaling_factor": 1.5,
        "moe_intermediate_size": 64,
        "moe_shared_expert_intermediate_size": 96,
        "vocab_size": VOCAB,
        "max_position_embeddings": 4096,
        "mlp_hidden_act": "relu2",
        "mamba_hidden_act": "silu",
        "tie_word_embeddings": False,
    },
    draws=DRAWS
    | {
        "*A_log": around(0.5, 0.7),
        "*.D": around(1, 0.3),
        "*conv1d.weight": around(0, 0.6),
        "*embeddings.weight": around(0, 0.2),
    },
)


def layout(weights: Weights, config: Config) -> tuple[Weights, Config]:
    """With the head that predicts further tokens, and the experts one by one."""
    weights = taps_last(weights) | {"mtp.norm.weight": mx.ones((128,))}
    for name in [name for name in weights if ".switch_mlp." in name]:
        path, _, part = name.partition(".switch_mlp.")
        projection = "up_proj" if part.startswith("fc1") else "down_proj"
        for index, expert in enumerate(weights.pop(name)):
            weights[f"{path}.experts.{index}.{projection}.weight"] = expert
    return saved_by_transformers(weights, config)


SAMPLE: dict[str, Recipe] = {"transformers layout": FAMILY.transformers(layout)}

ALL: dict[str, Recipe] = SAMPLE | {
    "float32": FAMILY.dense(),
    "4-bit": FAMILY.quantized(4, 32, dtype=mx.bfloat16, shards=2),
    "experts of fewer features, in groups": FAMILY.dense(moe_latent_size=64, n_group=4, topk_group=2),
    "no experts, by their types": FAMILY.quantized(
        8,
        hybrid_override_pattern=None,
        layers_block_type=["linear_attention", "mlp", "full_attention", "mlp"],
        num_hidden_layers=4,
    ),
}
