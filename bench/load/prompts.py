"""Prompts of a given length in tokens that no prefix cache has seen."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from tokenizers import Tokenizer

if TYPE_CHECKING:
    from pathlib import Path


class Prompts:
    """Draws prompts; equal seeds draw equal prompts.

    `prefix` tokens at the start are the same in all of them, the other `length - prefix` are new.
    Lengths are those of `tokenizer` (a folder with `tokenizer.json`); a server that puts a chat
    template around them counts a few more, and the report shows what the server counted.
    """

    def __init__(self, tokenizer: Path, seed: int) -> None:
        self._tokenizer = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
        self._draw = random.Random(seed)
        self._shared: dict[int, str] = {}

    def draw(self, length: int, prefix: int = 0) -> str:
        if prefix and prefix not in self._shared:
            self._shared[prefix] = self._text(prefix)
        return self._shared.get(prefix, "") + self._text(length - prefix)

    def _text(self, length: int) -> str:
        # A word too many each time, then cut to the very token.
        words = " ".join(str(self._draw.randrange(100, 1000)) for _ in range(length))
        ids = self._tokenizer.encode(words, add_special_tokens=False).ids[:length]
        return str(self._tokenizer.decode(ids))
