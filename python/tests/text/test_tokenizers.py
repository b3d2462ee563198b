"""`tokenizer.json` of the families that there are: ids and texts are those of transformers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from text_families import FAMILIES, build
from text_folders import detokenize, tokenize, write_model
from text_samples import texts
from transformers import AutoTokenizer

from support import connected

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx2

pytestmark = pytest.mark.e2e

CONFIG: dict[str, Any] = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": "<s>",
    "eos_token": {"__type": "AddedToken", "content": "</s>", "special": True},
    "add_bos_token": False,
    "extra_special_tokens": ["<|end|>"],
}


# The parts of the file, or those of the class that the configuration names.
LLAMA = {"tokenizer_class": "LlamaTokenizer", "unk_token": "<unk>"}
CLASSES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama2 by class": ("llama2", LLAMA),
    "llama2 legacy": ("llama2", LLAMA | {"legacy": True}),
    "llama2 no prefix": (
        "llama2",
        LLAMA | {"tokenizer_class": "LlamaTokenizerFast", "add_prefix_space": False},
    ),
    "llama3 by class": ("llama3", LLAMA),
    "unigram cleaned up": ("unigram", {"clean_up_tokenization_spaces": True}),
    "gpt2 not cleaned up": ("gpt2", {"clean_up_tokenization_spaces": True}),
    "mistral": ("llama2", LLAMA | {"model_type": "mistral"}),
}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {name: (name, {}) for name in FAMILIES} | CLASSES


@pytest.fixture(scope="module", params=KINDS)
def family(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, real_binary: Any
) -> Iterator[tuple[httpx2.Client, Any]]:
    """A client of a server with the family's tokenizer, and transformers' tokenizer of the same folder."""
    folder = tmp_path_factory.mktemp("family")
    name, changes = KINDS[request.param]
    tokenizer = build(name)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = CONFIG | changes
    model_type = config.pop("model_type", "llama")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    write_model(folder, tokenizer.get_vocab_size(), model_type=model_type)
    with connected(str(folder), real_binary) as http:
        yield http, AutoTokenizer.from_pretrained(folder)


@given(text=texts(), special=st.booleans(), parse=st.booleans())
@settings(max_examples=60)
def test_a_text_has_the_same_ids(
    family: tuple[httpx2.Client, Any], text: str, special: bool, parse: bool
) -> None:
    http, reference = family
    ids = reference(text, add_special_tokens=special, split_special_tokens=not parse)["input_ids"]
    assert tokenize(http, text, add_special=special, parse_special=parse) == ids


@given(data=st.data(), text=texts())
@settings(max_examples=40)
def test_tokens_have_the_same_text(family: tuple[httpx2.Client, Any], data: st.DataObject, text: str) -> None:
    http, reference = family
    some = data.draw(st.lists(st.integers(0, len(reference) - 1), max_size=20))
    ids = reference(text)["input_ids"]
    cut = data.draw(st.integers(0, len(ids)))
    for tokens in (ids, ids[cut:], some, ids[:cut] + some):
        assert detokenize(http, tokens) == reference.decode(tokens)
