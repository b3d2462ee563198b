"""What mlx-lm says, in float32: the values that the server is held to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import load_model

if TYPE_CHECKING:
    from pathlib import Path

TOP = 5


@dataclass(frozen=True)
class Step:
    """One greedy token: its id, its logprob, and the likeliest tokens with theirs."""

    token: int
    logprob: float
    top: dict[int, float]


def greedy(folder: Path, prompts: list[list[int]], tokens: int) -> list[list[Step]]:
    """The first `tokens` greedy steps after each prompt, in float32 whatever the checkpoint holds."""
    mx.set_default_device(mx.cpu)
    model, _ = load_model(folder)
    model.set_dtype(mx.float32)
    return [_generate(model, prompt, tokens) for prompt in prompts]


def _generate(model: Any, prompt: list[int], tokens: int) -> list[Step]:
    cache = make_prompt_cache(model)
    steps: list[Step] = []
    new = prompt
    while len(steps) < tokens:
        logits = model(mx.array(new)[None], cache=cache)[0, -1]
        logprobs = np.array(logits - mx.logsumexp(logits))
        best = [int(token) for token in np.argsort(-logprobs)[:TOP]]
        steps.append(Step(best[0], float(logprobs[best[0]]), {i: float(logprobs[i]) for i in best}))
        new = [best[0]]
    return steps
