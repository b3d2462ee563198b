"""GLM-4.5: a dense layer first, experts in groups with a correction, some for every token."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlx.core as mx
from checkpoints import VOCAB, Family, mixed
from expert_layouts import DRAWS, unstacked

if TYPE_CHECKING:
    from checkpoints import Config, Recipe, Weights

FAMILY = Family(
    {
        "model_type": "glm4_moe",
        "hidden_size": 128,
        "num_hidden_layers": 3,
        "intermediate_size": 192,
        "moe_intermediate_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "n_routed_experts": 8,
        "n_shared_experts": 1,
        "num_experts_per_tok": 3,
        "n_group": 1,
        "topk_group": 1,
        "norm_topk_prob": True,
        "routed_scaling_factor": 1.5,
        "first_k_dense_replace": 1,
        "attention_bias": True,
        "use_qk_norm": True,
        "partial_rotary_factor": 0.5,
        "rope_scaling": None,
        "rms_norm_eps": 1e-5,
        "vocab_size": VOCAB,
        "max_position_embeddings": 2048,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
    },
    draws=DRAWS,
)


def layout(weights: Weights, config: Config) -> tuple[Weights, Config]:
    """With a layer behind the last, which predicts a further token."""
    weights[f"model.layers.{config['num_hidden_layers']}.eh_proj.weight"] = mx.ones((128, 256))
    return unstacked(weights, config)


SAMPLE: dict[str, Recipe] = {
    "transformers layout": FAMILY.transformers(layout),
    "groups": FAMILY.dense(n_group=4, topk_group=2, use_qk_norm=False),
}

ALL: dict[str, Recipe] = SAMPLE | {
    "4-bit": FAMILY.quantized(4, dtype=mx.bfloat16, shards=2),
    "mixed bits": FAMILY.quantized(4, choose=mixed),
    "two shared": FAMILY.dense(n_shared_experts=2, norm_topk_prob=False),
}
