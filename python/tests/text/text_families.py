"""Small tokenizers in the shapes that the `tokenizer.json` files of the known models have."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from text_samples import CORPUS
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

if TYPE_CHECKING:
    from collections.abc import Callable

SPECIAL = ["<unk>", "<s>", "</s>", "<|end|>"]

# How texts are cut into words, by who began it. Facts of the models' files, joined from their parts.
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
BLANKS = r"\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = (
    rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{BLANKS}"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
QWEN35 = QWEN2.replace(r"\p{L}+", r"[\p{L}\p{M}]+").replace(r"[^\s\p{L}", r"[^\s\p{L}\p{M}")
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
O200K = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{CONTRACTIONS}?|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{CONTRACTIONS}?"
    rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{BLANKS}"
)
DEEPSEEK = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{BLANKS}"
)


def _split(pattern: str) -> Any:
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def _bytes() -> Any:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def _byte_level(*before: Any, normalizer: Any = None, around: str = "<s> $A") -> Tokenizer:
    """GPT-2's alphabet, with a cut before it."""
    tokenizer = Tokenizer(models.BPE(ignore_merges="<s>" in around))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*before, _bytes()])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=520,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=SPECIAL,
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer = _surrounded(tokenizer, around)
    steps = [processors.ByteLevel(trim_offsets=False), tokenizer.post_processor]
    tokenizer.post_processor = processors.Sequence(steps)
    return tokenizer


def _surrounded(tokenizer: Tokenizer, around: str) -> Tokenizer:
    named = [(name, tokenizer.token_to_id(name)) for name in ("<s>", "</s>") if name in around]
    template = processors.TemplateProcessing(single=around, pair=f"{around} $B", special_tokens=named)
    tokenizer.post_processor = template
    return tokenizer


def _byte_fallback(*, space: str = "prepend") -> Tokenizer:
    """SentencePiece's BPE as Llama 2 has it (`prepend`), later Llamas (`metaspace`), or Gemma (`plain`)."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    replace = normalizers.Replace(" ", "▁")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replace])
    tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=560, special_tokens=[*SPECIAL, *tokens], show_progress=False)
    # Of other scripts there are bytes only.
    tokenizer.train_from_iterator([line for line in CORPUS if "日" not in line], trainer)
    built = json.loads(tokenizer.to_str())
    built["added_tokens"] = [t for t in built["added_tokens"] if not t["content"].startswith("<0x")]
    tokenizer = Tokenizer.from_str(json.dumps(built))
    stages: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if space == "plain":
        tokenizer.normalizer = replace
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    else:
        stages.append(decoders.Strip(" ", 1, 0))
    if space == "metaspace":
        tokenizer.normalizer = None
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(stages)
    return _surrounded(tokenizer, "<s> $A </s>" if space == "plain" else "<s> $A")


def _unigram(normalizer: Any = None) -> Tokenizer:
    """As T5's: pieces with scores, words that begin with a space."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=400, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return _surrounded(tokenizer, "$A </s>")


def _word_piece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return _surrounded(tokenizer, "<s> $A </s>")


def _deepseek() -> Tokenizer:
    cuts = [_split(r"\p{N}{1,3}"), _split("[\u4e00-\u9fa5\u3040-\u30ff]+"), _split(DEEPSEEK)]
    return _byte_level(*cuts)


def _spaced_nfkc() -> Any:
    spaces = normalizers.Replace(Regex(" {2,}"), " ")
    return normalizers.Sequence([normalizers.NFKC(), normalizers.Strip(left=False), spaces])


FAMILIES: dict[str, Callable[[], Tokenizer]] = {
    "gpt2": lambda: _byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False), around="$A"),
    "starcoder2": lambda: _byte_level(pre_tokenizers.Digits(individual_digits=True)),
    "llama3": lambda: _byte_level(_split(LLAMA3)),
    "qwen2": lambda: _byte_level(_split(QWEN2), normalizer=normalizers.NFC(), around="$A"),
    "qwen3.5": lambda: _byte_level(_split(QWEN35), normalizer=normalizers.NFC(), around="$A"),
    "gpt-oss": lambda: _byte_level(_split(O200K), around="$A"),
    "deepseek": _deepseek,
    "llama2": _byte_fallback,
    "llama metaspace": lambda: _byte_fallback(space="metaspace"),
    "gemma": lambda: _byte_fallback(space="plain"),
    "unigram": _unigram,
    "unigram nfkc": lambda: _unigram(_spaced_nfkc()),
    "word pieces": _word_piece,
}


def build(family: str) -> Tokenizer:
    """A trained tokenizer with tokens added in each of the ways that there are."""
    tokenizer = FAMILIES[family]()
    tokenizer.add_tokens(
        [
            AddedToken("<tool_call>", normalized=False),
            AddedToken("<mask>", lstrip=True, normalized=False),
            AddedToken("</tool_call>", rstrip=True, normalized=False),
            AddedToken("<word>", single_word=True, normalized=False),
            AddedToken("Hello", normalized=True),
        ]
    )
    tokenizer.add_special_tokens([AddedToken("<|pad|>", special=True)])
    return tokenizer
