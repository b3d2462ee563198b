"""Kimi-VL: DeepSeek-V3 within a checkpoint that sees."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checkpoints import Family

from families import deepseek_v3

if TYPE_CHECKING:
    from checkpoints import Recipe

FAMILY = Family({"model_type": "kimi_vl", "text_config": deepseek_v3.FAMILY.config}, deepseek_v3.FAMILY.draws)

SAMPLE: dict[str, Recipe] = {"4-bit": FAMILY.quantized(4, 32)}

ALL: dict[str, Recipe] = SAMPLE | {"float32": FAMILY.dense()}
