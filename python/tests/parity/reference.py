"""What mlx-lm says, in float32: the values that the server is held to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np
from mlx.nn.layers.quantized import QuantizedEmbedding
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import load_adapters, load_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TOP = 5
# As many more are known, since the last of the likeliest may be as likely as the next one.
SPARE = 5


_unpacked: Any = QuantizedEmbedding.__call__


def _in_float32(self: Any, x: mx.array) -> mx.array:
    """Of `mxfp4`, `nvfp4` and `mxfp8` MLX makes bfloat16, in which mlx-lm would go on."""
    found: mx.array = _unpacked(self, x).astype(mx.float32)
    return found


setattr(QuantizedEmbedding, "__call__", _in_float32)  # noqa: B010


@dataclass(frozen=True)
class Step:
    """A token: its id, its logprob, and the `TOP + SPARE` likeliest tokens with theirs, in order."""

    token: int
    logprob: float
    top: dict[int, float]


class Reference:
    """mlx-lm's model of a checkpoint, in float32 whatever that holds."""

    def __init__(self, folder: Path, adapter: Path | None = None) -> None:
        mx.set_default_device(mx.cpu)
        self._model: Any = load_model(folder)[0]
        if adapter is not None:
            load_adapters(self._model, str(adapter))
        self._model.set_dtype(mx.float32)

    def greedy(self, prompts: list[list[int]], tokens: int) -> list[list[Step]]:
        """The first `tokens` greedy steps after each prompt."""
        return [self._generate(prompt, tokens) for prompt in prompts]

    def read(self, prompt: list[int], cache: Callable[[Any], list[Any]] = make_prompt_cache) -> list[Step]:
        """What the model expected at each token of a prompt, from the second on."""
        logits = self._model(mx.array(prompt)[None], cache=cache(self._model))[0, :-1]
        return [_step(row, token) for row, token in zip(logits, prompt[1:], strict=True)]

    def read_singly(self, prompt: list[int], cache: Callable[[Any], list[Any]]) -> list[Step]:
        """The same, computed token by token."""
        own = cache(self._model)
        logits = [self._model(mx.array([[token]]), cache=own)[0, -1] for token in prompt[:-1]]
        return [_step(row, token) for row, token in zip(logits, prompt[1:], strict=True)]

    def _generate(self, prompt: list[int], tokens: int) -> list[Step]:
        cache = make_prompt_cache(self._model)
        steps: list[Step] = []
        new = prompt
        while len(steps) < tokens:
            logits = self._model(mx.array(new)[None], cache=cache)[0, -1]
            steps.append(_step(logits))
            new = [steps[-1].token]
        return steps


def _step(logits: mx.array, token: int | None = None) -> Step:
    """Of a row of logits, for a token or else the likeliest one."""
    logprobs = np.array(logits - mx.logsumexp(logits))
    best = [int(place) for place in np.argsort(-logprobs)[: TOP + SPARE]]
    chosen = best[0] if token is None else token
    return Step(chosen, float(logprobs[chosen]), {i: float(logprobs[i]) for i in best})
