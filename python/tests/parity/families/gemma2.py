"""Gemma 2: soft caps. mlx-lm has no window: it is wider than what is compared."""

from __future__ import annotations

from checkpoints import VOCAB, Family, around, saved_by_transformers, usual

FAMILY = Family(
    {
        "model_type": "gemma2",
        "hidden_size": 128,
        "num_hidden_layers": 3,
        "intermediate_size": 256,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": VOCAB,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "head_dim": 64,
        "query_pre_attn_scalar": 32,
        "attn_logit_softcapping": 8.0,
        "final_logit_softcapping": 5.0,
        "sliding_window": 1024,
    },
    draws={
        # So large that what a layer adds counts beside the embeddings, which are multiplied by 11.
        "*post_*norm.weight": around(3, 0.5),
        # Their weights are what is added to one.
        "*norm.weight": around(0, 0.2),
        "*embed_tokens.weight": around(0, 0.06),
    },
)

SAMPLE, ALL = usual(FAMILY, saved_by_transformers)
