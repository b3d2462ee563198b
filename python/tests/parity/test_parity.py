"""Parity with mlx-lm: the same greedy tokens, and logprobs within a thousandth, through the real server."""

from __future__ import annotations

import json
import random
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from checkpoints import ALL, SAMPLE, VOCAB
from reference import TOP, Step, greedy, read
from tokenizers import Tokenizer

from mlxcel import ManagedServer

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.e2e

TOKENS = 64
# Shorter and longer than a prefill chunk, and over a step of the KV cache's growth.
PROMPT_LENGTHS = (1, 7, 700)
TINY = Path(__file__).parents[3] / "tiny-model" / "mlxcel-tiny"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "checkpoint" in metafunc.fixturenames:
        everything = metafunc.config.getoption("--parity") == "all"
        metafunc.parametrize("checkpoint", ALL if everything else SAMPLE)


def served(model: str, binary: Path, prompts: list[list[int]], **fields: Any) -> list[dict[str, Any]]:
    """The server's choice for each prompt, all of them asked for in one request."""
    body = {"prompt": prompts, "max_tokens": TOKENS, "temperature": 0, "logprobs": TOP} | fields
    with (
        ManagedServer(model, binary=binary) as server,
        httpx2.Client(
            transport=httpx2.HTTPTransport(uds=server.socket_path),
            headers={"Authorization": f"Bearer {server.api_key}"},
            base_url="http://localhost",
            timeout=120,
            trust_env=False,
        ) as http,
    ):
        response = http.post("/v1/completions", json=body)
        assert response.status_code == 200, response.text
        choices: list[dict[str, Any]] = response.json()["choices"]
    return sorted(choices, key=lambda choice: choice["index"])


def check(choice: dict[str, Any], expected: list[Step], text: Callable[[int], str]) -> None:
    """A choice says what the reference says; tokens are compared as the texts that the API has."""
    found = choice["logprobs"]
    assert found["tokens"] == [text(step.token) for step in expected]
    assert found["token_logprobs"] == pytest.approx([step.logprob for step in expected], abs=1e-3)
    for top, step in zip(found["top_logprobs"], expected, strict=True):
        # The token itself is listed also where it is none of the likeliest.
        wanted = {text(step.token): step.logprob}
        wanted |= {text(token): logprob for token, logprob in step.top.items()}
        assert top == pytest.approx(wanted, abs=1e-3)


def test_random_weights(checkpoint: str, tmp_path: Path, real_binary: Path) -> None:
    folder = tmp_path / "model"
    ALL[checkpoint](folder)
    draw = random.Random(3)
    prompts = [[draw.randrange(VOCAB) for _ in range(length)] for length in PROMPT_LENGTHS]
    expected = greedy(folder, prompts, TOKENS)
    for steps in expected:
        assert len({step.token for step in steps}) > TOKENS // 4, "the model repeats itself"
    for choice, steps in zip(served(str(folder), real_binary, prompts), expected, strict=True):
        assert choice["finish_reason"] == "length"
        check(choice, steps, lambda token: f"t{token}")


def test_the_built_in_model(real_binary: Path) -> None:
    tokenizer = Tokenizer.from_file(str(TINY / "tokenizer.json"))
    stop = json.loads((TINY / "generation_config.json").read_text())["eos_token_id"]
    texts = ["mlxcel is", "1, 2, 3, 4, 5, 6,", "The cat sat on the mat. " * 60]
    prompts = [tokenizer.encode(text).ids for text in texts]
    assert len(prompts[-1]) > 256
    expected = [
        list(takewhile(lambda step: step.token not in stop, steps)) for steps in greedy(TINY, prompts, TOKENS)
    ]
    assert all(expected)
    for choice, steps in zip(served("mlxcel-tiny", real_binary, prompts), expected, strict=True):
        check(choice, steps, lambda token: tokenizer.decode([token], skip_special_tokens=False))


def test_the_logprobs_of_a_prompt(checkpoint: str, tmp_path: Path, real_binary: Path) -> None:
    folder = tmp_path / "model"
    ALL[checkpoint](folder)
    draw = random.Random(5)
    prompt = [draw.randrange(VOCAB) for _ in range(300)]
    (choice,) = served(str(folder), real_binary, [prompt], echo=True, max_tokens=0)
    assert choice["logprobs"]["token_logprobs"][0] is None
    rest = {name: values[1:] for name, values in choice["logprobs"].items()}
    check({"logprobs": rest}, read(folder, prompt), lambda token: f"t{token}")
