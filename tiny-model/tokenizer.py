"""Trains the byte-level BPE tokenizer of mlxcel-tiny on the generator's own text.

    python tiny-model/tokenizer.py

Digits are tokens of their own, so that arithmetic works column by column, and
text in capitals stays in letters, so that letter case can be learnt.
"""

from __future__ import annotations

import json
import re

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

import chat
from generate import documents

VOCABULARY = 2048
DOCUMENTS = 60_000
# Letters with a space before them, single digits, punctuation, line ends, other space.
PIECES = r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s*[\r\n]+|\s+(?!\S)|\s+"


def _texts(seed: int) -> list[str]:
    """Documents without special tokens and without capitals beyond a word's first letter."""
    special = re.compile("|".join(map(re.escape, chat.SPECIAL_TOKENS)))
    shouted = re.compile(r"\b[A-Z]{2,}\b")
    stream = documents(seed)
    return [shouted.sub("", special.sub("\n", next(stream))) for _ in range(DOCUMENTS)]


def train() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(chat.SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(seed=0), trainer)
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in chat.ROLE_TOKENS + (chat.END_OF_TEXT,)]
    )
    # Parsers look for these in the text, so decoding with skip_special_tokens keeps them.
    others = [token for token in chat.SPECIAL_TOKENS if token not in (*chat.ROLE_TOKENS, chat.END_OF_TEXT)]
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in others])
    return tokenizer


def main() -> None:
    tokenizer = train()
    tokenizer.save(str(chat.MODEL / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": False,
        "add_eos_token": False,
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": chat.END_OF_TEXT,
        "unk_token": None,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 8192,
    }
    (chat.MODEL / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    sample = [text for text, _ in zip(documents(1), range(2000), strict=False)]
    count = sum(len(tokenizer.encode(text).ids) for text in sample)
    print(f"{tokenizer.get_vocab_size()} tokens; a document has {count / len(sample):.0f} tokens, "
          f"a token {sum(map(len, sample)) / count:.2f} characters")  # fmt: skip


if __name__ == "__main__":
    main()
