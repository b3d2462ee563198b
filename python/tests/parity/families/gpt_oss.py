"""gpt-oss: sinks, a window in every other layer, experts with biases in MXFP4."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlx.core as mx
from checkpoints import VOCAB, Family, around, saved_by_transformers

if TYPE_CHECKING:
    from checkpoints import Config, Recipe, Weights

YARN: Config = {
    "rope_type": "yarn",
    "factor": 8.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "original_max_position_embeddings": 256,
}

FAMILY = Family(
    {
        "model_type": "gpt_oss",
        "hidden_size": 128,
        "num_hidden_layers": 4,
        "intermediate_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "num_local_experts": 6,
        "num_experts_per_tok": 2,
        "sliding_window": 40,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "rope_scaling": YARN,
        "rope_theta": 150000,
        "rms_norm_eps": 1e-5,
        "vocab_size": VOCAB,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": False,
    },
    draws={"*.sinks": around(1, 1)},
)


def layout(weights: Weights, config: Config) -> tuple[Weights, Config]:
    """Experts as blocks of bytes, the rows of the gate and of the rest by turns."""

    def by_turns(gate: mx.array, up: mx.array) -> mx.array:
        return mx.stack([gate, up], axis=2).flatten(1, 2)

    def blocks(words: mx.array) -> mx.array:
        return words.view(mx.uint8).reshape(*words.shape[:2], -1, 16)

    for layer in range(config["num_hidden_layers"]):
        experts = f"model.layers.{layer}.mlp.experts"
        packed = {
            name: mx.quantize(weights.pop(f"{experts}.{name}.weight"), 32, 4, mode="mxfp4")
            for name in ("gate_proj", "up_proj", "down_proj")
        }
        biases = {name: weights.pop(f"{experts}.{name}.bias") for name in packed}
        gate, gate_scales, *_ = packed["gate_proj"]
        up, up_scales, *_ = packed["up_proj"]
        down, down_scales, *_ = packed["down_proj"]
        weights |= {
            f"{experts}.gate_up_proj_blocks": by_turns(blocks(gate), blocks(up)),
            f"{experts}.gate_up_proj_scales": by_turns(gate_scales, up_scales),
            f"{experts}.gate_up_proj_bias": by_turns(biases["gate_proj"], biases["up_proj"]),
            f"{experts}.down_proj_blocks": blocks(down),
            f"{experts}.down_proj_scales": down_scales,
            f"{experts}.down_proj_bias": biases["down_proj"],
        }
    weights, config = saved_by_transformers(weights, config)
    dense = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    method = {"quant_method": "mxfp4", "modules_to_not_convert": dense}
    extra = {"hidden_act": "silu", "attention_bias": True, "swiglu_limit": 7.0, "quantization_config": method}
    return weights, config | extra


SAMPLE: dict[str, Recipe] = {
    "transformers layout": FAMILY.transformers(layout),
    "4-bit": FAMILY.quantized(4, dtype=mx.bfloat16),
}

ALL: dict[str, Recipe] = SAMPLE | {
    "float32": FAMILY.dense(rope_scaling=None),
    "mxfp4": FAMILY.quantized(4, 32, mode="mxfp4", shards=2),
    "wide window": FAMILY.dense(sliding_window=300),
}
