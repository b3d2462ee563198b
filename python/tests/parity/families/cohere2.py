"""Command R7B: both halves side by side, windows in three layers of four."""

from __future__ import annotations

from checkpoints import VOCAB, Family, saved_by_transformers, usual

FAMILY = Family(
    {
        "model_type": "cohere2",
        "hidden_size": 128,
        "num_hidden_layers": 5,
        "intermediate_size": 256,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": VOCAB,
        "max_position_embeddings": 2048,
        "head_dim": 32,
        "layer_norm_eps": 1e-5,
        "logit_scale": 0.5,
        "rope_theta": 10000.0,
        "sliding_window": 96,
        "sliding_window_pattern": 4,
    }
)

SAMPLE, ALL = usual(FAMILY, saved_by_transformers)
ALL |= {"biases": FAMILY.dense(attention_bias=True, layer_norm_bias=True)}
