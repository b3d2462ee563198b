"""A cache of bounded size: what mlx-lm says with its `RotatingKVCache`, read token by token.

In chunks mlx-lm shows a token other positions, depending on where the chunk began; here every token sees the
first four and the last ones.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
from checkpoints import VOCAB
from families.llama import dense
from mlx_lm.models.cache import RotatingKVCache
from reference import Reference
from test_parity import CONTINUED, TOKENS, serving

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(("size", "length"), [(32, 100), (300, 900)])
def test_max_kv_size(size: int, length: int, tmp_path: Path, real_binary: Path) -> None:
    folder = tmp_path / "model"
    dense()(folder)
    draw = random.Random(7)
    prompt = [draw.randrange(VOCAB) for _ in range(length)]

    def cache(model: Any) -> list[Any]:
        rotating: Any = RotatingKVCache
        return [rotating(size, keep=4) for _ in model.layers]

    expected = Reference(folder).read_singly(prompt, cache)
    with serving(str(folder), real_binary, "--max-kv-size", str(size)) as ask:
        (read,) = ask([prompt], echo=True, max_tokens=0)
        logprobs = [step.logprob for step in expected]
        assert read["logprobs"]["token_logprobs"][1:] == pytest.approx(logprobs, abs=1e-3)

        # From the prefix cache: bit for bit the same.
        (whole,) = ask([prompt])
        found = whole["logprobs"]
        said = [int(token.removeprefix("t")) for token in found["tokens"]]
        (rest,) = ask([prompt + said[:CONTINUED]], max_tokens=TOKENS - CONTINUED)
        assert rest["logprobs"]["token_logprobs"] == found["token_logprobs"][CONTINUED:]
