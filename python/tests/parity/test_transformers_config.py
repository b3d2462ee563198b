"""What transformers 5 writes into `config.json`, with its names and forms, says what mlx-lm's does."""

from __future__ import annotations

import copy
import random
from typing import TYPE_CHECKING

import pytest
from families import named
from reference import Reference
from test_parity import check, serving, word
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.e2e

# Where its forms are others than mlx-lm's.
SAMPLE = ("gemma4_text", "granitemoehybrid", "olmo3", "qwen3_moe")
# Which it does not have, or in which it allows less than mlx-lm.
UNKNOWN = ("exaone4", "internlm3", "kimi_vl", "mimo", "minicpm")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    everything = metafunc.config.getoption("--parity") == "all"
    names = [name for name in named() if name not in UNKNOWN] if everything else SAMPLE
    metafunc.parametrize("family", names)


def test_what_transformers_writes_is_read(family: str, tmp_path: Path, real_binary: Path) -> None:
    folder = tmp_path / "model"
    original = named()[family]
    original.dense()(folder)
    draw = random.Random(3)
    prompt = [draw.randrange(500) for _ in range(200)]
    expected = Reference(folder).read(prompt)

    fields = copy.deepcopy(original.config)
    config = CONFIG_MAPPING[fields.pop("model_type")](**fields)
    (folder / "config.json").write_text(config.to_json_string(use_diff=False))
    with serving(str(folder), real_binary) as ask:
        (choice,) = ask([prompt], echo=True, max_tokens=0)
    after_first = {name: values[1:] for name, values in choice["logprobs"].items()}
    check({"logprobs": after_first}, expected, word)
