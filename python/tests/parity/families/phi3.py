"""Phi-3: fused projections, and positions for a stretched context."""

from __future__ import annotations

from checkpoints import VOCAB, Family, saved_by_transformers, usual

FAMILY = Family(
    {
        "model_type": "phi3",
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
        "original_max_position_embeddings": 512,
    }
)

SAMPLE, ALL = usual(FAMILY, saved_by_transformers, tie_word_embeddings=True)
LONG = {
    "type": "longrope",
    "short_factor": [1.0] * 16,
    "long_factor": [1.0 + 0.1 * i for i in range(16)],
}
ALL |= {
    "longrope": FAMILY.dense(rope_scaling=LONG),
    "partial": FAMILY.quantized(4, partial_rotary_factor=0.5),
}
