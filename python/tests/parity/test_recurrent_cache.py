"""The prefix cache of a model whose layers remember their last position only."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from checkpoints import VOCAB
from families import lfm2, mamba2, qwen3_5

from support import connected

if TYPE_CHECKING:
    from pathlib import Path

    from checkpoints import Family

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(
    "family", [mamba2.FAMILY, qwen3_5.FAMILY, lfm2.FAMILY], ids=["mamba2", "qwen3_5", "lfm2"]
)
def test_a_common_beginning_is_computed_twice_at_most(
    family: Family, tmp_path: Path, real_binary: Path
) -> None:
    folder = tmp_path / "model"
    family.dense()(folder)
    draw = random.Random(11)
    beginning, *tails = ([draw.randrange(VOCAB) for _ in range(length)] for length in (1000, 50, 60, 70, 80))
    cached = []
    with connected(str(folder), real_binary) as http:
        for tail in tails:
            response = http.post("/v1/completions", json={"prompt": beginning + tail, "max_tokens": 8})
            assert response.status_code == 200, response.text
            cached.append(response.json()["usage"]["prompt_tokens_details"]["cached_tokens"])
    # From a regular mark; from then on from where the first two parted.
    assert cached == [0, 768, 1000, 1000]
