"""`vocab.json` and `merges.txt` without a `tokenizer.json`: what transformers makes of them by the class."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from text_folders import detokenize, tokenize, write_model
from text_samples import CORPUS, texts
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoTokenizer

from support import connected

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx2

pytestmark = pytest.mark.e2e

CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": {"tokenizer_class": "GPT2Tokenizer"},
    "gpt2 with bos": {
        "tokenizer_class": "GPT2TokenizerFast",
        "add_prefix_space": True,
        "add_bos_token": True,
    },
    "qwen2": {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|end|>"},
}


@pytest.fixture(scope="module", params=CONFIGS)
def served_and_reference(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, real_binary: Path
) -> Iterator[tuple[httpx2.Client, Any]]:
    folder = tmp_path_factory.mktemp("vocab")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|endoftext|>", "<|end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = [" ".join(pair) for pair in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    added = {str(len(model["vocab"])): {"content": "<tool_call>", "normalized": False, "special": False}}
    config = CONFIGS[request.param] | {"added_tokens_decoder": added}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    write_model(folder, len(model["vocab"]) + 1)
    with connected(str(folder), real_binary) as http:
        yield http, AutoTokenizer.from_pretrained(folder)


@given(text=texts())
@settings(max_examples=80)
def test_ids_and_texts_are_those_of_transformers(
    served_and_reference: tuple[httpx2.Client, Any], text: str
) -> None:
    http, reference = served_and_reference
    for special in (True, False):
        ids = reference(text, add_special_tokens=special)["input_ids"]
        assert tokenize(http, text, add_special=special) == ids
        assert detokenize(http, ids) == reference.decode(ids)
