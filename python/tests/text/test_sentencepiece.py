"""A `tokenizer.model` without a `tokenizer.json`: what transformers and SentencePiece itself make of it."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import TYPE_CHECKING, Any

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from text_folders import detokenize, tokenize, write_model
from text_samples import CORPUS, texts
from transformers import AutoTokenizer

from support import connected

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx2

pytestmark = pytest.mark.e2e

# As Llama's was trained.
LLAMA: dict[str, Any] = {
    "model_type": "bpe",
    "byte_fallback": True,
    "split_digits": True,
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
    "character_coverage": 0.98,
}
SYMBOLS = {"control_symbols": ["<|end|>"], "user_defined_symbols": ["<tool_call>"]}


def train(folder: Path, vocab_size: int = 420, **options: Any) -> None:
    """Trains a `tokenizer.model` into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "tokenizer.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(CORPUS),
            model_writer=file,
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            minloglevel=2,
            **(SYMBOLS | options),
        )


def configure(folder: Path, **fields: Any) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps(fields))


class Served:
    """A folder's tokenizer, in transformers, in SentencePiece, and behind the server's endpoints."""

    def __init__(self, folder: Path, http: httpx2.Client) -> None:
        self.http = http
        self.transformers: Any = AutoTokenizer.from_pretrained(folder)
        self.sentencepiece: Any = sentencepiece.SentencePieceProcessor(
            model_file=str(folder / "tokenizer.model")
        )
        self.normalizes: bool = "Ⅻ" not in self.sentencepiece.normalize("Ⅻ")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param({"add_bos_token": True}, id="bos"),
        pytest.param({"legacy": True, "add_bos_token": True, "add_eos_token": True}, id="legacy"),
        pytest.param({"add_prefix_space": False}, id="no-prefix"),
        pytest.param(
            {
                "eos_token": "<|im_end|>",
                "added_tokens_decoder": {
                    "0": {"content": "<unk>", "special": True, "normalized": False},
                    "1": {"content": "<s>", "special": True, "normalized": False},
                    "2": {"content": "</s>", "special": True, "normalized": False},
                    "{n}": {"content": "<|im_start|>", "special": True, "normalized": False},
                    "{n+1}": {"content": "<|im_end|>", "special": True, "normalized": False},
                    "{n+2}": {"content": "<mask>", "lstrip": True, "special": False, "normalized": False},
                    "{n+3}": {"content": "<word>", "single_word": True, "special": False},
                },
            },
            id="added",
        ),
    ],
)
def llama(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, real_binary: Path
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("llama")
    train(folder, **LLAMA)
    size = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model")).vocab_size()
    text = json.dumps(request.param)
    for offset in (3, 2, 1):
        text = text.replace(f"{{n+{offset}}}", str(size + offset))
    configure(folder, tokenizer_class="LlamaTokenizer", **json.loads(text.replace("{n}", str(size))))
    write_model(folder, size + 4)
    with connected(str(folder), real_binary) as http:
        yield Served(folder, http)


@given(text=texts())
@settings(max_examples=80)
def test_llamas_tokenizer_is_that_of_transformers(llama: Served, text: str) -> None:
    for special in (True, False):
        ids = llama.transformers(text, add_special_tokens=special)["input_ids"]
        assert tokenize(llama.http, text, add_special=special) == ids
        assert detokenize(llama.http, ids) == llama.transformers.decode(ids)


@given(data=st.data())
@settings(max_examples=50)
def test_any_tokens_are_decoded_as_transformers_does(llama: Served, data: st.DataObject) -> None:
    ids = data.draw(st.lists(st.integers(0, len(llama.transformers) - 1), max_size=30))
    assert detokenize(llama.http, ids) == llama.transformers.decode(ids)


KINDS: dict[str, dict[str, Any]] = {
    "llama": LLAMA,
    "gemma": LLAMA
    | {"add_dummy_prefix": False, "user_defined_symbols": ["<tool_call>", "▁▁", "▁▁▁▁", "\n\n"]},
    "bpe": {"model_type": "bpe", "character_coverage": 1.0},
    "unigram": {"model_type": "unigram", "vocab_size": 330},
    "unigram nfkc_cf": {"model_type": "unigram", "vocab_size": 330, "normalization_rule_name": "nmt_nfkc_cf"},
    "unigram bytes": LLAMA | {"model_type": "unigram", "vocab_size": 500},
    "unigram plain": LLAMA
    | {"model_type": "unigram", "byte_fallback": False, "vocab_size": 330, "add_dummy_prefix": False},
}


@pytest.fixture(scope="module", params=KINDS)
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, real_binary: Path
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("model")
    train(folder, **KINDS[request.param])
    write_model(
        folder, sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model")).vocab_size()
    )
    with connected(str(folder), real_binary) as http:
        yield Served(folder, http)


# Where transformers, and so the server, means to differ: a user's symbol is cut out before anything is
# prepended, and Llama's space in front is only added where there is none.
SYMBOL = re.compile("<tool_call>|\n\n|▁")


def single(text: str) -> str:
    """Without what joins characters: the library applies rules of normalization to whole clusters."""
    return "".join(c for c in text if unicodedata.category(c)[0] != "M" and unicodedata.category(c) != "Cf")


@given(text=texts())
@settings(max_examples=150)
def test_ids_are_those_of_sentencepiece(model: Served, text: str) -> None:
    text = SYMBOL.sub("", text).lstrip(" ")
    if model.normalizes:
        text = single(text)
    assert tokenize(model.http, text, parse_special=False) == model.sentencepiece.encode(text)


@pytest.mark.parametrize("model", ["gemma", "unigram plain"], indirect=True)
@given(text=texts())
@settings(max_examples=80)
def test_a_model_without_a_class_is_what_transformers_makes_of_it(model: Served, text: str) -> None:
    ids = model.transformers(text)["input_ids"]
    assert tokenize(model.http, text) == ids
    assert detokenize(model.http, ids) == model.transformers.decode(ids)
