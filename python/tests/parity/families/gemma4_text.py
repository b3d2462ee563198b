"""Gemma 4: two kinds of heads, layers that share keys and values, the token told to every layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlx.core as mx
from checkpoints import VOCAB, Family, around, mixed, saved_by_transformers

if TYPE_CHECKING:
    from checkpoints import Config, Recipe, Weights

FAMILY = Family(
    {
        "model_type": "gemma4_text",
        "hidden_size": 128,
        "num_hidden_layers": 6,
        "intermediate_size": 256,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "global_head_dim": 64,
        "num_kv_shared_layers": 2,
        "use_double_wide_mlp": True,
        "hidden_size_per_layer_input": 64,
        "vocab_size": VOCAB,
        "vocab_size_per_layer_input": VOCAB,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "sliding_window": 96,
        "final_logit_softcapping": 20.0,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2,
    },
    draws={
        # So large that what a layer adds counts beside the embeddings, which are multiplied by 11.
        "*post_*norm.weight": around(3, 0.5),
        # Scores are not divided by the size of a head.
        "*q_norm.weight": around(0.3, 0.05),
        "*layer_scalar": around(0.8, 0.1),
        "*router.scale": around(1, 0.2),
        "*per_expert_scale": around(1, 0.3),
        "*embed_tokens.weight": around(0, 0.06),
    },
)


def layout(weights: Weights, config: Config) -> tuple[Weights, Config]:
    """The layers that share keys and values have projections for them all the same."""
    for layer in (4, 5):
        width = 2 * (32 if layer == 4 else 64)
        for name in ("k_proj", "v_proj"):
            weights[f"model.layers.{layer}.self_attn.{name}.weight"] = mx.ones((width, 128))
    return saved_by_transformers(weights, config)


SAMPLE: dict[str, Recipe] = {"transformers layout": FAMILY.transformers(layout)}
# As the one with four billion active parameters has it.
EXPERTS: Config = {
    "enable_moe_block": True,
    "num_experts": 8,
    "top_k_experts": 3,
    "moe_intermediate_size": 64,
    "num_kv_shared_layers": 0,
    "hidden_size_per_layer_input": 0,
    "attention_k_eq_v": True,
    "num_global_key_value_heads": 1,
}


def joined(weights: Weights, config: Config) -> tuple[Weights, Config]:
    """With gate and rest of the experts in one tensor."""
    for layer in range(config["num_hidden_layers"]):
        experts = f"model.layers.{layer}.experts"
        halves = [weights.pop(f"{experts}.switch_glu.{name}.weight") for name in ("gate_proj", "up_proj")]
        weights[f"{experts}.gate_up_proj"] = mx.concatenate(halves, axis=1)
        weights[f"{experts}.down_proj"] = weights.pop(f"{experts}.switch_glu.down_proj.weight")
    return saved_by_transformers(weights, config)


SAMPLE["experts"] = FAMILY.transformers(joined, **EXPERTS)
ALL: dict[str, Recipe] = SAMPLE | {
    "experts, 4-bit": FAMILY.quantized(4, 32, **EXPERTS),
    "float32": FAMILY.dense(),
    "4-bit": FAMILY.quantized(4, dtype=mx.bfloat16),
    "sharded mixed bits": FAMILY.quantized(4, choose=mixed, shards=3),
    "no shared layers": FAMILY.dense(num_kv_shared_layers=0, hidden_size_per_layer_input=0),
    "values are keys": FAMILY.dense(
        num_kv_shared_layers=0, attention_k_eq_v=True, num_global_key_value_heads=1
    ),
    "with images": Family(
        {"model_type": "gemma4", "vocab_size": VOCAB, "text_config": FAMILY.config}, FAMILY.draws
    ).quantized(4, choose=mixed),
}
