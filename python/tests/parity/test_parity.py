"""Parity with mlx-lm: the same greedy tokens, and logprobs within a thousandth, through the real server."""

from __future__ import annotations

import json
import random
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from adapters import ADAPTED, write_adapter
from checkpoints import VOCAB
from families import named, recipes
from reference import TOP, Reference, Step
from tokenizers import Tokenizer
from variations import variation

from support import connected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from checkpoints import Recipe

    Choice = dict[str, Any]
    Ask = Callable[..., list[Choice]]

pytestmark = pytest.mark.e2e

TOKENS = 64
# Shorter and longer than a prefill chunk, and over a step of the KV cache's growth.
PROMPT_LENGTHS = (1, 7, 700)
# Tokens of the answer that become prompt.
CONTINUED = 32
# Those that are tried where no number is given.
VARIED = [("llama", 1), ("gemma3_text", 1), ("deepseek_v3", 1), ("qwen3_next", 1), ("nemotron_h", 1)]
TINY = Path(__file__).parents[3] / "tiny-model" / "mlxcel-tiny"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "recipe" in metafunc.fixturenames:
        which = "ALL" if metafunc.config.getoption("--parity") == "all" else "SAMPLE"
        metafunc.parametrize("recipe", [pytest.param(it, id=name) for name, it in recipes(which).items()])
    if "varied" in metafunc.fixturenames:
        count = metafunc.config.getoption("--variations")
        cases = [(family, seed) for family in named() for seed in range(count)] or VARIED
        metafunc.parametrize("varied", [pytest.param(it, id=f"{it[0]}-{it[1]}") for it in cases])


@contextmanager
def serving(model: str, binary: Path, *arguments: str) -> Iterator[Ask]:
    """Such a server, as a function from prompts to the choice for each, all asked for in one request."""
    with connected(model, binary, *arguments) as http:

        def ask(prompts: list[list[int]], **fields: Any) -> list[Choice]:
            body = {"prompt": prompts, "max_tokens": TOKENS, "temperature": 0, "logprobs": TOP} | fields
            response = http.post("/v1/completions", json=body)
            assert response.status_code == 200, response.text
            choices: list[Choice] = response.json()["choices"]
            return sorted(choices, key=lambda choice: choice["index"])

        yield ask


def check(choice: Choice, expected: list[Step], text: Callable[[int], str]) -> None:
    """A choice says what the reference says; tokens are compared as the texts that the API has."""
    found = choice["logprobs"]
    assert found["tokens"] == [text(step.token) for step in expected]
    assert found["token_logprobs"] == pytest.approx([step.logprob for step in expected], abs=1e-3)
    for top, step in zip(found["top_logprobs"], expected, strict=True):
        known = {text(token): logprob for token, logprob in step.top.items()}
        # The token itself is listed also where it is none of the likeliest.
        known |= {text(step.token): step.logprob}
        assert top == pytest.approx({token: known.get(token) for token in top}, abs=1e-3)
        assert len(top) in (TOP, TOP + 1)
        least = sorted(step.top.values(), reverse=True)[TOP - 1]
        assert sorted(top.values(), reverse=True)[TOP - 1] == pytest.approx(least, abs=1e-3)


def word(token: int) -> str:
    return f"t{token}"


def test_random_weights(recipe: Recipe, tmp_path: Path, real_binary: Path) -> None:
    folder = tmp_path / "model"
    recipe(folder)
    expected = compare(folder, real_binary, VOCAB)
    for steps in expected:
        assert len({step.token for step in steps}) > TOKENS // 4, "the model repeats itself"


def test_variations(varied: tuple[str, int], tmp_path: Path, real_binary: Path) -> None:
    """Configurations that nobody chose: `variations.py` draws them."""
    family, seed = varied
    recipe, config = variation(family, seed)
    folder = tmp_path / "model"
    recipe(folder)
    compare(folder, real_binary, config["vocab_size"], lengths=(2, 40, 300 + 37 * seed % 400))


def compare(
    folder: Path, binary: Path, vocab: int, lengths: tuple[int, ...] = PROMPT_LENGTHS
) -> list[list[Step]]:
    """The server says what mlx-lm says: about prompts of these lengths together, about one that it has in its
    prefix cache, and about one that is only read. Returns what mlx-lm said to the first ones.
    """
    draw = random.Random(3)
    prompts = [[draw.randrange(vocab) for _ in range(length)] for length in lengths]
    reference = Reference(folder)
    expected = reference.greedy(prompts, TOKENS)
    with serving(str(folder), binary) as ask:
        together = ask(prompts)
        for choice, steps in zip(together, expected, strict=True):
            assert choice["finish_reason"] == "length"
            check(choice, steps, word)

        # Alone, and from the prefix cache's copy of its state: bit for bit the same.
        said = [step.token for step in expected[-1]]
        (rest,) = ask([prompts[-1] + said[:CONTINUED]], max_tokens=TOKENS - CONTINUED)
        assert rest["logprobs"]["token_logprobs"] == together[-1]["logprobs"]["token_logprobs"][CONTINUED:]

        prompt = [draw.randrange(vocab) for _ in range(300)]
        (choice,) = ask([prompt], echo=True, max_tokens=0)
        assert choice["logprobs"]["token_logprobs"][0] is None
        after_first = {name: values[1:] for name, values in choice["logprobs"].items()}
        check({"logprobs": after_first}, reference.read(prompt), word)
    return expected


@pytest.mark.parametrize("adapter", ADAPTED)
def test_adapters(adapter: str, tmp_path: Path, real_binary: Path) -> None:
    folder, tuned = tmp_path / "model", tmp_path / "adapter"
    kind, recipe = ADAPTED[adapter]
    recipe(folder)
    write_adapter(tuned, folder, kind)
    draw = random.Random(3)
    prompts = [[draw.randrange(VOCAB) for _ in range(length)] for length in PROMPT_LENGTHS]
    expected = Reference(folder, tuned).greedy(prompts, TOKENS)
    assert expected != Reference(folder).greedy(prompts, TOKENS)
    with serving(str(folder), real_binary, "--adapter", str(tuned)) as ask:
        for choice, steps in zip(ask(prompts), expected, strict=True):
            check(choice, steps, word)


def test_the_built_in_model(real_binary: Path) -> None:
    tokenizer = Tokenizer.from_file(str(TINY / "tokenizer.json"))
    stop = json.loads((TINY / "generation_config.json").read_text())["eos_token_id"]
    texts = ["mlxcel is", "1, 2, 3, 4, 5, 6,", "The cat sat on the mat. " * 60]
    prompts = [tokenizer.encode(text).ids for text in texts]
    assert len(prompts[-1]) > 256
    expected = [
        list(takewhile(lambda step: step.token not in stop, steps))
        for steps in Reference(TINY).greedy(prompts, TOKENS)
    ]
    assert all(expected)
    with serving("mlxcel-tiny", real_binary) as ask:
        choices = ask(prompts)
    for choice, steps in zip(choices, expected, strict=True):
        check(choice, steps, lambda token: tokenizer.decode([token], skip_special_tokens=False))
