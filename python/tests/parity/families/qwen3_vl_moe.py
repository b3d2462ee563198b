"""Qwen3-VL's mixtures of experts: matrices that are multiplied from the left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlx.core as mx
from checkpoints import Family

from families import qwen3_moe, qwen3_vl

if TYPE_CHECKING:
    from checkpoints import Config, Recipe, Weights

TEXT = {**qwen3_moe.FAMILY.config, "model_type": "qwen3_vl_moe_text", "rope_scaling": qwen3_vl.MROPE}

FAMILY = Family({"model_type": "qwen3_vl_moe", "text_config": TEXT}, qwen3_moe.FAMILY.draws)


def layout(weights: Weights, config: Config) -> tuple[Weights, Config]:
    """With gate and rest of the experts in one tensor, and features of the token first."""
    for layer in range(config["text_config"]["num_hidden_layers"]):
        mlp = f"language_model.model.layers.{layer}.mlp"
        if f"{mlp}.gate.weight" not in weights:
            continue
        halves = [weights.pop(f"{mlp}.switch_mlp.{name}.weight") for name in ("gate_proj", "up_proj")]
        weights[f"{mlp}.experts.gate_up_proj"] = mx.concatenate(halves, axis=1).swapaxes(1, 2)
        down = weights.pop(f"{mlp}.switch_mlp.down_proj.weight")
        weights[f"{mlp}.experts.down_proj"] = down.swapaxes(1, 2)
    return qwen3_vl.layout(weights, config)


SAMPLE: dict[str, Recipe] = {"transformers layout": FAMILY.transformers(layout)}

ALL: dict[str, Recipe] = SAMPLE | {"4-bit": FAMILY.quantized(4, dtype=mx.bfloat16)}
