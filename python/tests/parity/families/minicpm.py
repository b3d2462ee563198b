"""MiniCPM: factors of width and depth."""

from __future__ import annotations

from checkpoints import VOCAB, Family, saved_by_transformers, usual

FAMILY = Family(
    {
        "model_type": "minicpm",
        "hidden_size": 128,
        "num_hidden_layers": 3,
        "intermediate_size": 256,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": VOCAB,
        "max_position_embeddings": 2048,
        "rope_theta": 10000.0,
        "rms_norm_eps": 1e-5,
        "dim_model_base": 64,
        "scale_depth": 1.4,
        "scale_emb": 12,
        "tie_word_embeddings": False,
    }
)

SAMPLE, ALL = usual(FAMILY, saved_by_transformers)
ALL["longrope"] = FAMILY.quantized(
    4,
    rope_scaling={
        "rope_type": "longrope",
        "short_factor": [1.0] * 16,
        "long_factor": [1.0 + 0.2 * i for i in range(16)],
        "original_max_position_embeddings": 512,
    },
)
