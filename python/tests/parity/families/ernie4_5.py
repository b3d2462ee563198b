"""ERNIE 4.5: Llama by neighbouring pairs."""

from __future__ import annotations

from checkpoints import VOCAB, Family, saved_by_transformers, usual

FAMILY = Family(
    {
        "model_type": "ernie4_5",
        "hidden_size": 128,
        "num_hidden_layers": 3,
        "intermediate_size": 256,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": VOCAB,
        "max_position_embeddings": 2048,
        "rope_theta": 10000.0,
        "head_dim": 64,
        "rms_norm_eps": 1e-5,
        "use_bias": False,
        "tie_word_embeddings": False,
    }
)

SAMPLE, ALL = usual(FAMILY, saved_by_transformers, tie_word_embeddings=True)
ALL["biases"] = FAMILY.quantized(8, use_bias=True)
