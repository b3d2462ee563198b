"""StarCoder2: layer normalization and biases everywhere."""

from __future__ import annotations

from checkpoints import VOCAB, Family, around, by_fan_in, saved_by_transformers, usual

FAMILY = Family(
    {
        "model_type": "starcoder2",
        "hidden_size": 128,
        "num_hidden_layers": 3,
        "intermediate_size": 256,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": VOCAB,
        "max_position_embeddings": 2048,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "norm_epsilon": 1e-5,
    },
    draws={
        # So small that they do not say everything.
        "*norm.bias": around(0, 0.05),
        "*bias": around(0, 0.1),
        "*v_proj.weight": by_fan_in(3),
        "*c_*.weight": by_fan_in(4),
    },
    seed=8,
)

SAMPLE, ALL = usual(FAMILY, saved_by_transformers, tie_word_embeddings=True)
