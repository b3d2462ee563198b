"""Qwen3: norms on queries and keys."""

from __future__ import annotations

from checkpoints import VOCAB, Family, saved_by_transformers, usual

FAMILY = Family(
    {
        "model_type": "qwen3",
        "hidden_size": 128,
        "num_hidden_layers": 3,
        "intermediate_size": 256,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": VOCAB,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "head_dim": 64,
    },
    seed=1,
)

SAMPLE, ALL = usual(FAMILY, saved_by_transformers, tie_word_embeddings=True)
ALL |= {
    "yarn": FAMILY.dense(
        rope_scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}
    ),
}
