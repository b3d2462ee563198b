"""Small random-weight checkpoints of any architecture, each a folder that the server and mlx-lm both load.

A recipe writes one kind of checkpoint that people have: a type, a packing, a layout. A `Family` makes
the recipes of one architecture; `families/` has one file each.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any

import mlx.core as mx
from mlx.utils import tree_flatten, tree_map_with_path
from mlx_lm.utils import _get_classes, quantize_model, save_config, save_model
from tokenizers import Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    Config = dict[str, Any]
    Weights = dict[str, mx.array]
    Recipe = Callable[[Path], None]
    Draw = Callable[[tuple[int, ...]], mx.array]
    # Of mlx-lm's weights and the configuration: what transformers would have saved.
    Layout = Callable[[Weights, Config], tuple[Weights, Config]]
    # Of a layer's path and the layer: how it is quantized, if at all.
    Choose = Callable[[str, Any], "bool | dict[str, Any]"]

VOCAB = 512


def around(middle: float, spread: float) -> Draw:
    """Normally distributed numbers."""
    return lambda shape: middle + spread * mx.random.normal(shape)


def by_fan_in(gain: float) -> Draw:
    """Matrices that keep about `gain` times the size of what they are multiplied with."""
    return lambda shape: gain * shape[-1] ** -0.5 * mx.random.normal(shape)


# By the end of a weight's name; the first that fits. Chosen such that logits are spread, and greedy
# text is not one token.
DRAWS: dict[str, Draw] = {
    "*norm*.weight": around(1, 0.2),
    "*bias": around(0, 0.3),
    # Small, so that with a tied head a token does not predict itself.
    "*embed_tokens*.weight": around(0, 0.1),
    "*": by_fan_in(1.5),
}


@dataclass(frozen=True)
class Family:
    """One architecture: a small configuration, and what is particular about its checkpoints."""

    config: Config
    # Goes before `DRAWS`.
    draws: Mapping[str, Draw] = field(default_factory=dict)
    # One whose greedy text does not run in a circle.
    seed: int = 7

    def random_model(self, config: Config) -> Any:
        """mlx-lm's model of `config`, in float32."""
        mx.random.seed(self.seed)
        # `from_dict` of some architectures writes into the nested parts.
        config = json.loads(json.dumps(config))
        model_class, args_class = _get_classes(config)
        model: Any = model_class(args_class.from_dict(config))
        draws = dict(self.draws) | DRAWS

        def draw(name: str, value: mx.array) -> mx.array:
            if not mx.issubdtype(value.dtype, mx.floating):
                return value
            return next(draw for pattern, draw in draws.items() if fnmatch(name, pattern))(value.shape)

        model.update(tree_map_with_path(draw, model.parameters()))
        return model

    def dense(self, dtype: mx.Dtype = mx.float32, shards: int = 1, **changes: Any) -> Recipe:
        """Unquantized, as `mlx_lm.convert` writes it."""

        def write(folder: Path) -> None:
            config = self.config | changes
            model = self.random_model(config)
            model.set_dtype(dtype)
            _save(folder, model, config)
            if shards > 1:
                _split(folder, shards)

        return write

    def quantized(
        self,
        bits: int = 4,
        group_size: int = 64,
        dtype: mx.Dtype = mx.float32,
        *,
        mode: str = "affine",
        choose: Choose | None = None,
        shards: int = 1,
        **changes: Any,
    ) -> Recipe:
        """Quantized by mlx-lm; `choose` leaves layers dense, or packs them differently."""

        def write(folder: Path) -> None:
            config = self.config | changes
            model = self.random_model(config)
            model.set_dtype(dtype)
            model, config = quantize_model(model, config, group_size, bits, mode=mode, quant_predicate=choose)
            _save(folder, model, config)
            if shards > 1:
                _split(folder, shards)

        return write

    def transformers(self, layout: Layout, dtype: mx.Dtype = mx.bfloat16, **changes: Any) -> Recipe:
        """As transformers saves it: `layout` undoes what mlx-lm's `sanitize` would do."""

        def write(folder: Path) -> None:
            config = self.config | changes
            model = self.random_model(config)
            model.set_dtype(dtype)
            weights: Weights = {}
            tree_flatten(model.parameters(), destination=weights)
            weights, config = layout(weights, config)
            folder.mkdir(parents=True)
            mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "pt"})
            (folder / "config.json").write_text(json.dumps(config))
            _write_tokenizer(folder, config)

        return write


def usual(family: Family, layout: Layout, **tied: Any) -> tuple[dict[str, Recipe], dict[str, Recipe]]:
    """The recipes that every architecture has, of the sample and all; `tied` are the changes that tie its
    embeddings, or untie them, where it can have both.
    """
    sample = {
        "4-bit": family.quantized(4, dtype=mx.bfloat16),
        "transformers layout": family.transformers(layout, **tied),
    }
    everything = sample | {
        "float32": family.dense(),
        "sharded mixed bits": family.quantized(4, choose=mixed, shards=3),
        "8-bit": family.quantized(8, 32),
    }
    if tied:
        everything["tied otherwise"] = family.quantized(4, **tied)
    return sample, everything


def mixed(path: str, _: object) -> bool | dict[str, Any]:
    """What mlx-lm's mixed recipes and dynamic quantization choose: overrides for single layers."""
    if path.endswith("lm_head"):
        return {"group_size": 32, "bits": 8}
    if "down_proj" in path:
        return {"group_size": 64, "bits": 6}
    if "v_proj" in path:
        return {"group_size": 128, "bits": 3}
    return "layers.1.mlp" not in path and "embed_tokens" not in path


def saved_by_transformers(weights: Weights, config: Config) -> tuple[Weights, Config]:
    """What every checkpoint of transformers 5 has: its own bookkeeping."""
    return weights, config | {
        "architectures": ["SomethingForCausalLM"],
        "attention_dropout": 0.0,
        "dtype": "bfloat16",
        "initializer_range": 0.02,
        "pad_token_id": None,
        "transformers_version": "5.23.0",
        "use_cache": True,
    }


def taps_last(weights: Weights) -> Weights:
    """With the convolutions as transformers has them, `[features, 1, taps]`."""
    turned = ("conv1d.weight", "conv.conv.weight")
    return {
        name: mx.swapaxes(value, 1, 2) if name.endswith(turned) else value for name, value in weights.items()
    }


def norms_less_one(weights: Weights) -> Weights:
    """With the norms that Qwen's hybrids have as an offset from one."""
    offset = ("layernorm.weight", "model.norm.weight", "q_norm.weight", "k_norm.weight")
    return {name: value - 1 if name.endswith(offset) else value for name, value in weights.items()}


def _save(folder: Path, model: Any, config: Config) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_model(folder, model)
    save_config(dict(config), folder / "config.json")
    _write_tokenizer(folder, config)


def _write_tokenizer(folder: Path, config: Config) -> None:
    """One word a token, so that a token's text tells its id: `t17` is 17."""
    size = config.get("text_config", config).get("vocab_size", VOCAB)
    tokenizer = Tokenizer(WordLevel({f"t{i}": i for i in range(size)}, unk_token="t0"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.decoder = Fuse()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text("{}")


def _split(folder: Path, shards: int) -> None:
    whole = folder / "model.safetensors"
    weights = mx.load(str(whole))
    assert isinstance(weights, dict)
    names = sorted(weights)
    index: dict[str, str] = {}
    for number in range(shards):
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        part = names[number::shards]
        mx.save_safetensors(str(folder / file), {name: weights[name] for name in part}, {"format": "mlx"})
        index |= dict.fromkeys(part, file)
    whole.unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


__all__ = [
    "VOCAB",
    "Family",
    "around",
    "by_fan_in",
    "mixed",
    "norms_less_one",
    "saved_by_transformers",
    "taps_last",
    "usual",
]
