"""Gemma 3: windows shorter than the prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checkpoints import VOCAB, Family, around, saved_by_transformers, usual

if TYPE_CHECKING:
    from checkpoints import Config, Weights

FAMILY = Family(
    {
        "model_type": "gemma3_text",
        "hidden_size": 128,
        "num_hidden_layers": 4,
        "intermediate_size": 256,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": VOCAB,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "head_dim": 64,
        "rope_theta": 100000.0,
        "rope_local_base_freq": 10000.0,
        "query_pre_attn_scalar": 32,
        "sliding_window": 96,
        "sliding_window_pattern": 3,
    },
    draws={
        # So large that what a layer adds counts beside the embeddings, which are multiplied by 11.
        "*post_*norm.weight": around(3, 0.5),
        # Sharp, so that greedy text does not run in a circle.
        "*q_norm.weight": around(2, 0.4),
        # Their weights are what is added to one.
        "*norm.weight": around(0, 0.2),
        "*embed_tokens.weight": around(0, 0.06),
    },
)


def layout(weights: Weights, config: Config) -> tuple[Weights, Config]:
    """Its embeddings are always tied there; mlx-lm's have a head of their own where there is one."""
    del weights["lm_head.weight"]
    return saved_by_transformers(weights, config)


SAMPLE, ALL = usual(FAMILY, layout)
