"""What ends a generation: end tokens of all files together, and the model's context."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from text_families import build
from text_folders import write_model

from support import connected

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx2

pytestmark = pytest.mark.e2e

CONTEXT = 64
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"
# Which ids each file names; "</s>" is the tokenizer's, 2.
ENDS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], set[int]]] = {
    "one of each": ({"eos_token_id": 300}, {"eos_token_id": 301}, {"eos_token": "</s>"}, {300, 301, 2}),
    "lists": ({"eos_token_id": [300, 302]}, {"eos_token_id": [301, 303]}, {}, {300, 301, 302, 303}),
    "an object": ({}, {"eos_token_id": None}, {"eos_token": {"content": "</s>", "special": True}}, {2}),
    "none": ({"eos_token_id": -1}, {}, {"eos_token": None}, set()),
}
OTHERS = {1, 2, 300, 301, 302, 303, 310}


@pytest.fixture(scope="module", params=ENDS)
def ends(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, real_binary: Path
) -> Iterator[tuple[httpx2.Client, set[int]]]:
    """A client of a server whose files name these end tokens, and all of them."""
    generation, model, tokens, ids = ENDS[request.param]
    folder = tmp_path_factory.mktemp("ends")
    tokenizer = build("gpt2")
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(config | tokens))
    (folder / "generation_config.json").write_text(json.dumps(generation))
    write_model(folder, tokenizer.get_vocab_size(), max_position_embeddings=CONTEXT, **model)
    with connected(str(folder), real_binary) as http:
        yield http, ids


def complete(http: httpx2.Client, prompt: list[int], **fields: Any) -> dict[str, Any]:
    response = http.post("/v1/completions", json={"prompt": prompt, "temperature": 0} | fields)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_each_end_token_ends_and_no_other_does(ends: tuple[httpx2.Client, set[int]]) -> None:
    http, ids = ends
    for token in sorted(OTHERS):
        # So likely that it is the next token, whatever the model says.
        answer = complete(http, [10, 11, 12], max_tokens=4, logit_bias={str(token): 100})
        choice = answer["choices"][0]
        assert choice["finish_reason"] == ("stop" if token in ids else "length"), token
        if token in ids:
            assert choice["text"] == ""


@pytest.mark.parametrize("ends", ["none"], indirect=True)
def test_a_generation_that_fills_the_context_ends_there(ends: tuple[httpx2.Client, set[int]]) -> None:
    http, _ = ends
    for length in (CONTEXT - 1, CONTEXT - 10):
        answer = complete(http, [10] * length, max_tokens=500)
        assert answer["choices"][0]["finish_reason"] == "length"
        assert answer["usage"]["prompt_tokens"] == length
        assert answer["usage"]["total_tokens"] == CONTEXT


@pytest.mark.parametrize("ends", ["none"], indirect=True)
def test_a_prompt_beyond_the_context_is_told_both_numbers(ends: tuple[httpx2.Client, set[int]]) -> None:
    http, _ = ends
    chat = [{"role": "user", "content": " ".join("abcdefghij" * 9)}]
    tokens = http.post("/tokenize", json={"content": chat[0]["content"]}).json()["tokens"]
    requests: list[tuple[str, dict[str, Any], int]] = [
        ("/v1/completions", {"prompt": [10] * (CONTEXT + 6)}, CONTEXT + 6),
        ("/v1/chat/completions", {"messages": chat}, len(tokens)),
        ("/v1/chat/completions", {"messages": chat, "stream": True}, len(tokens)),
    ]
    for path, body, length in requests:
        response = http.post(path, json=body | {"max_tokens": 1})
        assert response.status_code == 400, response.text
        error = response.json()["error"]
        assert error["code"] == "context_length_exceeded"
        assert str(length) in error["message"]
        assert str(CONTEXT) in error["message"]
