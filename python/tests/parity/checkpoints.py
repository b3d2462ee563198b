"""Small random-weight Llama checkpoints, each a folder that the server and mlx-lm both load.

Every recipe writes one kind of checkpoint that people have: a type, a packing, a layout.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import mlx.core as mx
from mlx.utils import tree_flatten, tree_map_with_path
from mlx_lm.models import llama
from mlx_lm.utils import quantize_model, save_config, save_model
from tokenizers import Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Config = dict[str, Any]
    Recipe = Callable[[Path], None]

VOCAB = 512

BASE: Config = {
    "model_type": "llama",
    "hidden_size": 128,
    "num_hidden_layers": 3,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "vocab_size": VOCAB,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
}

# Fields that mlx-lm's Llama does not have.
UNREAD = ("hidden_act",)

LLAMA3_ROPE: Config = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 256,
}


def random_model(config: Config) -> llama.Model:
    """A float32 model whose logits are spread, so that greedy text is not one token."""
    mx.random.seed(7)
    model = llama.Model(llama.ModelArgs(**{key: config[key] for key in config if key not in UNREAD}))

    def weight(name: str, shape: tuple[int, ...]) -> mx.array:
        if name.endswith("norm.weight"):
            return 1 + 0.2 * mx.random.normal(shape)
        if name.endswith("bias"):
            return 0.3 * mx.random.normal(shape)
        # Small embeddings, so that with a tied head a token does not predict itself.
        scale = 0.2 if name == "model.embed_tokens.weight" else 1.5 * shape[-1] ** -0.5
        return scale * mx.random.normal(shape)

    model.update(tree_map_with_path(lambda name, value: weight(name, value.shape), model.parameters()))
    return model


def write_tokenizer(folder: Path) -> None:
    """One word a token, so that a token's text tells its id: `t17` is 17."""
    tokenizer = Tokenizer(WordLevel({f"t{i}": i for i in range(VOCAB)}, unk_token="t0"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.decoder = Fuse()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text("{}")


def save(folder: Path, model: llama.Model, config: Config) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_model(folder, model)
    save_config(dict(config), folder / "config.json")
    write_tokenizer(folder)


def dense(dtype: mx.Dtype = mx.float32, **changes: Any) -> Recipe:
    def write(folder: Path) -> None:
        config = BASE | changes
        model = random_model(config)
        model.set_dtype(dtype)
        save(folder, model, config)

    return write


def quantized(bits: int, group_size: int = 64, dtype: mx.Dtype = mx.float32, **changes: Any) -> Recipe:
    def write(folder: Path) -> None:
        config = BASE | changes
        model = random_model(config)
        model.set_dtype(dtype)
        model, config = quantize_model(model, config, group_size, bits)
        save(folder, model, config)

    return write


def mixed_bits(folder: Path) -> None:
    """What mlx-lm's mixed recipes and dynamic quantization write: overrides for single layers."""

    def choose(path: str, _: object) -> bool | dict[str, Any]:
        if path == "lm_head":
            return {"group_size": 32, "bits": 8}
        if "down_proj" in path:
            return {"group_size": 64, "bits": 6}
        if "v_proj" in path:
            return {"group_size": 128, "bits": 3}
        return "layers.1.mlp" not in path and path != "model.embed_tokens"

    model, config = quantize_model(random_model(BASE), BASE, 64, 4, quant_predicate=choose)
    save(folder, model, config)


def sharded(folder: Path) -> None:
    dense(mx.bfloat16)(folder)
    weights = mx.load(str(folder / "model.safetensors"))
    assert isinstance(weights, dict)
    names = sorted(weights)
    index: dict[str, str] = {}
    for number in range(3):
        file = f"model-{number + 1:05d}-of-00003.safetensors"
        part = names[number::3]
        mx.save_safetensors(str(folder / file), {name: weights[name] for name in part}, {"format": "mlx"})
        index |= dict.fromkeys(part, file)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def transformers_layout(folder: Path) -> None:
    """As transformers saves a tied bfloat16 Llama: no index, its own configuration, and the
    frequencies and the second copy of the embeddings that older versions wrote as well.
    """
    config: Config = BASE | {"tie_word_embeddings": True}
    model = random_model(config)
    model.set_dtype(mx.bfloat16)
    weights: dict[str, mx.array] = {}
    tree_flatten(model.parameters(), destination=weights)
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    for layer in range(config["num_hidden_layers"]):
        weights[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = mx.ones((16,))
    folder.mkdir(parents=True)
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "pt"})
    theta = config.pop("rope_theta")
    extra = {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "dtype": "bfloat16",
        "head_dim": 32,
        "initializer_range": 0.02,
        "mlp_bias": False,
        "pad_token_id": None,
        "pretraining_tp": 1,
        "rope_parameters": {"rope_theta": theta, "rope_type": "default"},
        "transformers_version": "5.23.0",
        "use_cache": True,
    }
    (folder / "config.json").write_text(json.dumps(config | extra))
    write_tokenizer(folder)


# Those that `make test` takes: together they pass through every branch.
SAMPLE: dict[str, Recipe] = {
    "float32": dense(),
    "bfloat16 sharded": sharded,
    "transformers layout": transformers_layout,
    "4-bit": quantized(4, dtype=mx.bfloat16, tie_word_embeddings=True),
    "mixed bits": mixed_bits,
    "llama3 rope": dense(rope_theta=500000.0, rope_scaling=LLAMA3_ROPE, tie_word_embeddings=True),
    "biases": dense(attention_bias=True, mlp_bias=True),
}

ALL: dict[str, Recipe] = SAMPLE | {
    "float16": dense(mx.float16),
    "tied": dense(tie_word_embeddings=True),
    "mistral": dense(model_type="mistral", sliding_window=None),
    "linear rope": dense(rope_scaling={"type": "linear", "factor": 4.0}),
    "traditional rope": dense(rope_traditional=True),
    "head_dim": dense(head_dim=64),
    "one key head": dense(num_key_value_heads=1),
    "4-bit float32": quantized(4),
    "4-bit float16": quantized(4, dtype=mx.float16),
    "4-bit biases": quantized(4, attention_bias=True, mlp_bias=True),
    "2-bit": quantized(2, 32),
    "3-bit": quantized(3),
    "5-bit": quantized(5),
    "6-bit": quantized(6),
    "8-bit": quantized(8, 128),
    "8-bit bfloat16": quantized(8, 32, mx.bfloat16, tie_word_embeddings=True),
}
