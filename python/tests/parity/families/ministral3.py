"""Ministral 3: windows, and queries that grow beyond 256 positions."""

from __future__ import annotations

from checkpoints import VOCAB, Family, saved_by_transformers, usual

FAMILY = Family(
    {
        "model_type": "ministral3",
        "hidden_size": 128,
        "num_hidden_layers": 3,
        "intermediate_size": 256,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": VOCAB,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "head_dim": 32,
        "sliding_window": 96,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 10000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 256,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
            "llama_4_scaling_beta": 0.1,
        },
    }
)

SAMPLE, ALL = usual(FAMILY, saved_by_transformers, tie_word_embeddings=True)
