"""Ways to write a checkpoint, drawn: types, bits, modes, single layers otherwise, shards."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import mlx.core as mx

if TYPE_CHECKING:
    from checkpoints import Choose, Config, Family, Layout, Recipe


def drawn(draw: random.Random, family: Family, layout: Layout, text: Config) -> Recipe:
    """A checkpoint of `family` in a type, packing or layout drawn; `text` describes its language model."""
    shards = draw.choice((1, 1, 3))
    kind = draw.choice(("float32", "half", "layout", "affine", "affine", "mixed", "floats"))
    dtype = draw.choice((mx.float32, mx.bfloat16, mx.float16))
    if kind == "float32":
        return family.dense(shards=shards)
    if kind == "half":
        return family.dense(draw.choice((mx.bfloat16, mx.float16)), shards=shards)
    if kind == "layout" and text["model_type"] not in ("gemma4_text", "llama"):
        return family.transformers(layout)
    if kind == "floats":
        mode, bits, group = draw.choice((("mxfp4", 4, 32), ("nvfp4", 4, 16), ("mxfp8", 8, 32)))
        return family.quantized(bits, group, dtype, mode=mode, choose=_even, shards=shards)
    bits, group = draw.choice((2, 3, 4, 5, 6, 8)), draw.choice((32, 64, 128))
    if kind == "mixed":
        return family.quantized(bits, group, dtype, choose=_other_bits(draw.random()), shards=shards)
    return family.quantized(bits, group, dtype, choose=_every, shards=shards)


def _every(_: str, __: object) -> bool:
    """Routers as well, for whose groups of their own these shapes may be too small."""
    return True


def _even(_: str, layer: Any) -> bool:
    """MLX packs no odd number of rows into numbers of floating point."""
    count: int = layer.weight.shape[-2]
    return count % 2 == 0


def _other_bits(seed: float) -> Choose:
    """Some layers denser, some not packed at all, whichever."""

    def choose(path: str, layer: Any) -> bool | dict[str, Any]:
        draw = random.Random(f"{seed}{path}")
        share, bits, group = draw.random(), draw.choice((2, 3, 4, 5, 6, 8)), draw.choice((32, 64))
        if share < 0.2:
            return False
        if share < 0.5 and layer.weight.shape[-1] % group == 0:
            return {"bits": bits, "group_size": group}
        if share < 0.6 and _even(path, layer) and layer.weight.shape[-1] % 32 == 0:
            return {"mode": "mxfp8", "bits": 8, "group_size": 32}
        return True

    return choose
