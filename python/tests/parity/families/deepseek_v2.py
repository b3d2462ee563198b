"""DeepSeek-V2: latents that mlx-lm unfolds, experts by a softmax."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlx.core as mx
from checkpoints import VOCAB, Family, mixed
from expert_layouts import DRAWS, unstacked

if TYPE_CHECKING:
    from checkpoints import Config, Recipe

YARN: Config = {
    "type": "yarn",
    "factor": 4.0,
    "mscale": 0.707,
    "mscale_all_dim": 0.707,
    "original_max_position_embeddings": 64,
    "beta_fast": 32,
    "beta_slow": 1,
}

FAMILY = Family(
    {
        "model_type": "deepseek_v2",
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
        "n_shared_experts": 2,
        "num_experts_per_tok": 3,
        "n_group": 4,
        "topk_group": 2,
        "topk_method": "group_limited_greedy",
        "scoring_func": "softmax",
        "norm_topk_prob": False,
        "routed_scaling_factor": 6.0,
        "first_k_dense_replace": 1,
        "moe_layer_freq": 1,
        "attention_bias": False,
        "rope_scaling": YARN,
        "rms_norm_eps": 1e-6,
        "vocab_size": VOCAB,
        "max_position_embeddings": 2048,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
    },
    draws=DRAWS,
)
# As the Lite has it.
PLAIN: Config = {"q_lora_rank": None, "n_group": 1, "topk_group": 1, "topk_method": "greedy"}

SAMPLE: dict[str, Recipe] = {
    "transformers layout": FAMILY.transformers(unstacked),
    "4-bit": FAMILY.quantized(4, 32, dtype=mx.bfloat16, **PLAIN),
}

ALL: dict[str, Recipe] = SAMPLE | {
    "float32": FAMILY.dense(attention_bias=True),
    "sharded 8-bit": FAMILY.quantized(8, 64, shards=2),
    "mixed bits": FAMILY.quantized(4, choose=mixed, **PLAIN),
    "mxfp4": FAMILY.quantized(4, 32, mode="mxfp4"),
}
