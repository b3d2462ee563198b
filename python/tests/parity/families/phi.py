"""Phi-2: halves side by side, biases everywhere."""

from __future__ import annotations

from checkpoints import VOCAB, Family, around, by_fan_in, saved_by_transformers, usual

FAMILY = Family(
    {
        "model_type": "phi",
        "hidden_size": 128,
        "num_hidden_layers": 3,
        "intermediate_size": 256,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": VOCAB,
        "max_position_embeddings": 2048,
        "rope_theta": 10000.0,
        "layer_norm_eps": 1e-5,
        "partial_rotary_factor": 0.5,
    },
    # Sharp, so that greedy text does not run in a circle; biases that do not always say the same.
    draws={"*q_proj.weight": by_fan_in(3), "*bias": around(0, 0.1)},
    seed=8,
)

SAMPLE, ALL = usual(FAMILY, saved_by_transformers)
ALL["all heads"] = FAMILY.dense(num_key_value_heads=4, partial_rotary_factor=0.25)
