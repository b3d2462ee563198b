"""Command R: halves side by side, and norms of each head's own."""

from __future__ import annotations

from checkpoints import VOCAB, Family, saved_by_transformers, usual

FAMILY = Family(
    {
        "model_type": "cohere",
        "hidden_size": 128,
        "num_hidden_layers": 3,
        "intermediate_size": 256,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": VOCAB,
        "max_position_embeddings": 2048,
        "rope_theta": 10000.0,
        "layer_norm_eps": 1e-5,
        "logit_scale": 0.5,
        "use_qk_norm": False,
    }
)

SAMPLE, ALL = usual(FAMILY, saved_by_transformers)
ALL["norms"] = SAMPLE["norms"] = FAMILY.quantized(4, use_qk_norm=True)
ALL["biases"] = FAMILY.dense(attention_bias=True, layer_norm_bias=True)
