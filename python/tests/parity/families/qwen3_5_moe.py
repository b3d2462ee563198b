"""Qwen3.5 with experts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlx.core as mx
from checkpoints import Family
from expert_layouts import DRAWS as EXPERT_DRAWS

from families import qwen3_5

if TYPE_CHECKING:
    from checkpoints import Config, Recipe, Weights

TEXT: Config = qwen3_5.TEXT | {
    "model_type": "qwen3_5_moe_text",
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "shared_expert_intermediate_size": 64,
    "moe_intermediate_size": 64,
}
FAMILY = Family({"model_type": "qwen3_5_moe", "text_config": TEXT}, EXPERT_DRAWS | qwen3_5.DRAWS)


def layout(weights: Weights, config: Config) -> tuple[Weights, Config]:
    """With gate and rest of the experts in one tensor."""
    for layer in range(config["text_config"]["num_hidden_layers"]):
        mlp = f"language_model.model.layers.{layer}.mlp"
        halves = [weights.pop(f"{mlp}.switch_mlp.{name}.weight") for name in ("gate_proj", "up_proj")]
        weights[f"{mlp}.experts.gate_up_proj"] = mx.concatenate(halves, axis=1)
        weights[f"{mlp}.experts.down_proj"] = weights.pop(f"{mlp}.switch_mlp.down_proj.weight")
    return qwen3_5.layout(weights, config)


SAMPLE: dict[str, Recipe] = {"transformers layout": FAMILY.transformers(layout)}

ALL: dict[str, Recipe] = SAMPLE | {
    "float32": FAMILY.dense(),
    "4-bit": FAMILY.quantized(4, dtype=mx.bfloat16, shards=2),
}
