"""EXAONE 4: windows by a word, positions only within them."""

from __future__ import annotations

from checkpoints import VOCAB, Family, around, saved_by_transformers, usual

FAMILY = Family(
    {
        "model_type": "exaone4",
        "hidden_size": 128,
        "num_hidden_layers": 5,
        "intermediate_size": 256,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": VOCAB,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "head_dim": 32,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 16.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 256,
        },
        "sliding_window": 96,
        "sliding_window_pattern": "LLLG",
    },
    # Sharp, so that greedy text does not run in a circle.
    draws={"*q_norm.weight": around(3, 0.4)},
)

SAMPLE, ALL = usual(FAMILY, saved_by_transformers, tie_word_embeddings=True)
ALL |= {"no window": FAMILY.dense(sliding_window=None, sliding_window_pattern=None)}
