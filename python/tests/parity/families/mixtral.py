"""Mixtral: experts in every layer, the weights of the chosen ones by a softmax over them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlx.core as mx
from checkpoints import VOCAB, Family, mixed
from expert_layouts import unstacked

if TYPE_CHECKING:
    from checkpoints import Config, Recipe, Weights

FAMILY = Family(
    {
        "model_type": "mixtral",
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_local_experts": 6,
        "num_experts_per_tok": 2,
        "rms_norm_eps": 1e-5,
        "vocab_size": VOCAB,
        "max_position_embeddings": 2048,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
    }
)


def layout(weights: Weights, config: Config) -> tuple[Weights, Config]:
    names = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}
    weights, config = unstacked(weights, config, names)
    return weights, config | {"hidden_act": "silu", "sliding_window": None, "router_aux_loss_coef": 0.02}


SAMPLE: dict[str, Recipe] = {
    "transformers layout": FAMILY.transformers(layout),
    "mixed bits": FAMILY.quantized(4, choose=mixed),
}

ALL: dict[str, Recipe] = SAMPLE | {
    "float32": FAMILY.dense(),
    "tied, 4-bit, sharded": FAMILY.quantized(4, dtype=mx.bfloat16, shards=3, tie_word_embeddings=True),
}
