"""Gemma: heads of their own size, embeddings that are multiplied."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from checkpoints import VOCAB, Family, around, saved_by_transformers, usual
from mlx.nn.layers.activations import gelu_approx
from mlx_lm.models import gemma

if TYPE_CHECKING:
    import mlx.core as mx


def _by_tanh(self: Any, x: mx.array) -> mx.array:
    """As transformers computes it also where a `config.json` says "gelu"; mlx-lm has the exact one."""
    opened: mx.array = gelu_approx(self.gate_proj(x)) * self.up_proj(x)
    down: mx.array = self.down_proj(opened)
    return down


setattr(gemma.MLP, "__call__", _by_tanh)  # noqa: B010

FAMILY = Family(
    {
        "model_type": "gemma",
        "hidden_size": 128,
        "num_hidden_layers": 3,
        "intermediate_size": 256,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": VOCAB,
        "max_position_embeddings": 2048,
        "rope_theta": 10000.0,
        "head_dim": 64,
        "rms_norm_eps": 1e-6,
        "hidden_act": "gelu",
    },
    draws={
        # Their weights are what is added to one.
        "*norm.weight": around(0, 0.2),
        # So small that what a layer adds counts beside them, which are multiplied by 11.
        "*embed_tokens.weight": around(0, 0.06),
    },
)

SAMPLE, ALL = usual(FAMILY, saved_by_transformers)
