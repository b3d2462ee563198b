"""OLMo 3: windows in three layers of four."""

from __future__ import annotations

from checkpoints import VOCAB, Family, around, saved_by_transformers, usual

FAMILY = Family(
    {
        "model_type": "olmo3",
        "hidden_size": 128,
        "num_hidden_layers": 5,
        "intermediate_size": 256,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": VOCAB,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "rope_theta": 500000.0,
        "tie_word_embeddings": False,
        "sliding_window": 96,
        "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512},
    },
    # Sharp, so that greedy text does not run in a circle.
    draws={"*q_norm.weight": around(3, 0.4)},
    seed=8,
)

SAMPLE, ALL = usual(FAMILY, saved_by_transformers, tie_word_embeddings=True)
