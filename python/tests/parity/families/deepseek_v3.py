"""DeepSeek-V3: latent attention, experts in groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlx.core as mx
from checkpoints import VOCAB, Family, by_fan_in
from expert_layouts import DRAWS, unstacked

if TYPE_CHECKING:
    from checkpoints import Config, Recipe, Weights

YARN: Config = {
    "type": "yarn",
    "factor": 8.0,
    "beta_fast": 32,
    "beta_slow": 1,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "original_max_position_embeddings": 256,
}

FAMILY = Family(
    {
        "model_type": "deepseek_v3",
        "hidden_size": 128,
        "num_hidden_layers": 3,
        "intermediate_size": 192,
        "moe_intermediate_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "q_lora_rank": 64,
        "kv_lora_rank": 64,
        "qk_nope_head_dim": 32,
        "qk_rope_head_dim": 16,
        "v_head_dim": 24,
        "n_routed_experts": 8,
        "n_shared_experts": 1,
        "num_experts_per_tok": 3,
        "n_group": 4,
        "topk_group": 2,
        "norm_topk_prob": True,
        "routed_scaling_factor": 2.5,
        "first_k_dense_replace": 1,
        "attention_bias": False,
        "rope_scaling": YARN,
        "rms_norm_eps": 1e-6,
        "vocab_size": VOCAB,
        "max_position_embeddings": 2048,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
    },
    draws={**DRAWS, "*.embed_q.weight": by_fan_in(1.5)},
)


def layout(weights: Weights, config: Config) -> tuple[Weights, Config]:
    """Keys and values made of latents by one matrix; a layer behind the last, for a further token."""
    for layer in range(config["num_hidden_layers"]):
        attention = f"model.layers.{layer}.self_attn"
        keys = weights.pop(f"{attention}.embed_q.weight").swapaxes(-1, -2)
        values = weights.pop(f"{attention}.unembed_out.weight")
        both = mx.concatenate([keys, values], axis=1)
        weights[f"{attention}.kv_b_proj.weight"] = both.flatten(0, 1)
        weights[f"{attention}.rotary_emb.inv_freq"] = mx.ones((8,))
    # mlx-lm knows the further layer by the number that the released model gives it.
    weights["model.layers.61.eh_proj.weight"] = mx.ones((128, 256))
    weights, config = unstacked(weights, config)
    return weights, config | {"hidden_act": "silu", "scoring_func": "sigmoid", "topk_method": "noaux_tc"}


SAMPLE: dict[str, Recipe] = {"transformers layout": FAMILY.transformers(layout)}

ALL: dict[str, Recipe] = SAMPLE | {
    "no groups, queries of full rank": FAMILY.dense(n_group=1, topk_group=1, q_lora_rank=None),
    "8-bit": FAMILY.quantized(8, 32, mx.bfloat16, shards=2, rope_scaling=None, attention_bias=True),
    "4-bit": FAMILY.quantized(4, 32),
}
