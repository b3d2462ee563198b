"""Random-weight Llama checkpoints of a given shape, for measuring speed (speed does not read the text)."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_map
from mlx_lm.models.llama import Model, ModelArgs
from mlx_lm.utils import quantize_model, save_config, save_model

TINY = Path(__file__).resolve().parent.parent / "tiny-model" / "mlxcel-tiny"


# For requests: random weights may say the end, or half a character; this token (" the") is always text.
SAME_TOKEN = {"logit_bias": {"300": 100}}


@dataclass(frozen=True)
class Shape:
    """A Llama shape; the vocabulary is the built-in tokenizer's or larger."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    mlp: int
    vocab: int
    bits: int | None = None
    dtype: str = "float32"


LLAMA_90M = {"hidden": 768, "layers": 12, "heads": 12, "kv_heads": 4, "mlp": 2048, "vocab": 8192}

SHAPES = {
    "2M": Shape(hidden=128, layers=6, heads=8, kv_heads=4, mlp=384, vocab=2048),
    "16M": Shape(hidden=384, layers=8, heads=8, kv_heads=4, mlp=1024, vocab=4096),
    "90M-4bit": Shape(**LLAMA_90M, bits=4),
    "90M-8bit": Shape(**LLAMA_90M, bits=8),
    "90M-bfloat16": Shape(**LLAMA_90M, dtype="bfloat16"),
    "90M-float32": Shape(**LLAMA_90M),
    # Few keys and values beside the weights, as with models of a billion parameters and more.
    "1B-4bit": Shape(hidden=2048, layers=16, heads=32, kv_heads=8, mlp=8192, vocab=8192, bits=4),
    "600M-bfloat16": Shape(
        hidden=1536, layers=16, heads=24, kv_heads=8, mlp=6144, vocab=8192, dtype="bfloat16"
    ),
}


def align(path: Path) -> None:
    """Fills the header up to eight bytes, as the hub's own library does and MLX does not: numbers at odd
    addresses are copied when they are loaded.
    """
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        padding = -size % 8
        if not padding:
            return
        aligned = path.with_suffix(".aligned")
        with aligned.open("wb") as copy:
            copy.write((size + padding).to_bytes(8, "little") + file.read(size) + b" " * padding)
            shutil.copyfileobj(file, copy, 1 << 24)
    aligned.replace(path)


def write(shape: Shape, folder: Path) -> None:
    """Writes a checkpoint with the built-in tokenizer: dense or quantized, its floating-point numbers (scales
    too) in the shape's type.

    No token ends a generation, so that every run makes as many tokens as it was asked for.
    """
    config: dict[str, Any] = {
        "model_type": "llama",
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "intermediate_size": shape.mlp,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "rms_norm_eps": 1e-5,
        "vocab_size": shape.vocab,
        "rope_theta": 10000.0,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    }
    mx.random.seed(0)
    model = Model(ModelArgs.from_dict(config))
    model.update(tree_map(lambda array: mx.random.normal(array.shape) * 0.05, model.parameters()))
    if shape.bits is not None:
        model, config = quantize_model(model, config, group_size=64, bits=shape.bits)
    model.set_dtype(getattr(mx, shape.dtype))
    mx.eval(model.parameters())
    folder.mkdir(parents=True, exist_ok=True)
    save_model(folder, model)
    align(folder / "model.safetensors")
    save_config(config, folder / "config.json")
    shutil.copy(TINY / "tokenizer.json", folder)
    settings = json.loads((TINY / "tokenizer_config.json").read_text())
    settings.pop("eos_token", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
