"""MiniMax-M2: experts in every layer, norms over all heads together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checkpoints import VOCAB, Family, mixed
from expert_layouts import DRAWS, unstacked

if TYPE_CHECKING:
    from checkpoints import Config, Recipe, Weights

FAMILY = Family(
    {
        "model_type": "minimax_m2",
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "intermediate_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 48,
        "rotary_dim": 32,
        "num_local_experts": 8,
        "num_experts_per_tok": 3,
        "shared_intermediate_size": 0,
        "scoring_func": "sigmoid",
        "use_qk_norm": True,
        "rms_norm_eps": 1e-6,
        "vocab_size": VOCAB,
        "max_position_embeddings": 2048,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
    },
    draws=DRAWS,
)


def layout(weights: Weights, config: Config) -> tuple[Weights, Config]:
    names = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}
    weights, config = unstacked(weights, config, names)
    return weights, config | {"hidden_act": "silu", "use_routing_bias": True}


SAMPLE: dict[str, Recipe] = {"transformers layout": FAMILY.transformers(layout)}

ALL: dict[str, Recipe] = SAMPLE | {
    "float32": FAMILY.dense(use_qk_norm=False),
    "4-bit": FAMILY.quantized(4, model_type="minimax"),
    "tied, mixed bits": FAMILY.quantized(4, choose=mixed, tie_word_embeddings=True),
}
