"""Qwen3.5: gated delta networks with gated attention between them, inside of a checkpoint with images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlx.core as mx
from checkpoints import VOCAB, Family, around, mixed, norms_less_one, saved_by_transformers, taps_last

if TYPE_CHECKING:
    from checkpoints import Config, Recipe, Weights

TEXT: Config = {
    "model_type": "qwen3_5_text",
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "rms_norm_eps": 1e-6,
    "vocab_size": VOCAB,
    "max_position_embeddings": 4096,
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 24,
    "linear_value_head_dim": 32,
    "linear_conv_kernel_dim": 4,
    "tie_word_embeddings": False,
    "full_attention_interval": 4,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.25,
        "mrope_section": [4, 2, 2],
        "mrope_interleaved": True,
    },
}
DRAWS = {
    "*A_log": around(0.5, 0.7),
    "*conv1d.weight": around(0, 0.6),
}
FAMILY = Family({"model_type": "qwen3_5", "text_config": TEXT}, DRAWS)
# The same without anything around it.
ALONE = Family(TEXT | {"model_type": "qwen3_5"}, DRAWS)


def layout(weights: Weights, config: Config) -> tuple[Weights, Config]:
    """With the vision part, and the head that predicts further tokens."""
    weights = norms_less_one(taps_last(weights))
    weights = {
        name.replace("language_model.model.", "model.language_model.").removeprefix("language_model."): value
        for name, value in weights.items()
    }
    weights["model.visual.blocks.0.norm1.weight"] = mx.ones((32,))
    weights["mtp.norm.weight"] = mx.ones((128,))
    text = config["text_config"]
    every = text["full_attention_interval"]
    layers = range(1, text["num_hidden_layers"] + 1)
    types = ["linear_attention" if layer % every else "full_attention" for layer in layers]
    text = text | {"layer_types": types, "hidden_act": "silu", "attn_output_gate": True}
    return saved_by_transformers(weights, config | {"text_config": text, "vision_config": {"depth": 1}})


SAMPLE: dict[str, Recipe] = {
    "4-bit": FAMILY.quantized(4, dtype=mx.bfloat16),
    "transformers layout": FAMILY.transformers(layout),
}

ALL: dict[str, Recipe] = SAMPLE | {
    "float32": FAMILY.dense(),
    "mixed bits": FAMILY.quantized(4, choose=mixed),
    "alone, tied": ALONE.quantized(8, 32, tie_word_embeddings=True),
    "sharded": ALONE.dense(mx.bfloat16, shards=3),
}
