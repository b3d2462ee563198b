"""StableLM 2: layer normalization, a part of each head turned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checkpoints import VOCAB, Family, around, by_fan_in, saved_by_transformers, usual

if TYPE_CHECKING:
    from checkpoints import Config

FAMILY = Family(
    {
        "model_type": "stablelm",
        "hidden_size": 128,
        "num_hidden_layers": 3,
        "intermediate_size": 256,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": VOCAB,
        "max_position_embeddings": 2048,
        "rope_theta": 10000.0,
        "layer_norm_eps": 1e-5,
        "partial_rotary_factor": 0.25,
        "use_qkv_bias": True,
    },
    # Sharp, so that greedy text does not run in a circle; biases that do not always say the same.
    draws={
        "*q_proj.weight": by_fan_in(3),
        "*_layernorm.norms*.weight": around(2, 0.3),
        "*bias": around(0, 0.1),
    },
)

SAMPLE, ALL = usual(FAMILY, saved_by_transformers)
# As the one of 12 billion parameters has it.
PARALLEL: Config = {"use_qkv_bias": False, "use_parallel_residual": True, "qk_layernorm": True}
ALL["parallel"] = SAMPLE["parallel"] = FAMILY.transformers(saved_by_transformers, **PARALLEL)
ALL["parallel 4-bit"] = FAMILY.quantized(4, **PARALLEL)
ALL["norms"] = FAMILY.dense(qk_layernorm=True)
