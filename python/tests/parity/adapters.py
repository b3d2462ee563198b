"""Adapters as `mlx_lm.lora` writes them, with random weights."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import mlx.core as mx
from families import llama, qwen3_5
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.utils import load_model

if TYPE_CHECKING:
    from pathlib import Path

    from checkpoints import Recipe

PARAMETERS: dict[str, Any] = {"rank": 4, "scale": 2.0, "dropout": 0.0}

# Kinds of adapters and what they are tried on: together dense and packed layers, with and without biases,
# and a language model inside of a checkpoint with more.
ADAPTED: dict[str, tuple[str, Recipe]] = {
    "lora": ("lora", llama.FAMILY.quantized(4, dtype=mx.bfloat16, mlp_bias=True)),
    "dora": ("dora", llama.FAMILY.quantized(8, attention_bias=True)),
    "full": ("full", llama.FAMILY.dense(mx.bfloat16)),
    "lora, nested": ("lora", qwen3_5.FAMILY.quantized(8)),
}


def write_adapter(folder: Path, model_folder: Path, kind: str) -> None:
    """For the last two layers of a model."""
    folder.mkdir()
    config: dict[str, Any] = {"fine_tune_type": kind, "num_layers": 2, "lora_parameters": PARAMETERS}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    model: Any = load_model(model_folder)[0]
    mx.random.seed(11)
    if kind != "full":
        linear_to_lora_layers(model, 2, PARAMETERS, use_dora=kind == "dora")
    chosen = (".lora_a", ".lora_b", ".m") if kind != "full" else ("2.self_attn.q_proj.weight", "norm.weight")
    tensors: dict[str, mx.array] = {}
    parameters: dict[str, mx.array] = {}
    tree_flatten(model.parameters(), destination=parameters)
    for name, value in parameters.items():
        if name.endswith(chosen):
            noise = mx.random.normal(value.shape)
            # Magnitudes stay about what the matrix has.
            tensors[name] = value * (1 + 0.1 * noise) if name.endswith((".m", "weight")) else 0.2 * noise
    mx.save_safetensors(str(folder / "adapters.safetensors"), tensors)
