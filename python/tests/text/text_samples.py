# ruff: noqa: RUF001 - letters of all scripts
"""Texts that tokenizers trip over, and a corpus to train small ones with. All of it is our own."""

from __future__ import annotations

from hypothesis import strategies as st

# Some of each script, with runs, numbers and code, so that merges of all kinds are learned.
CORPUS = [
    "The quick brown fox jumps over the lazy dog, and the dog sleeps on. It's what they'd do, isn't it?",
    '{"name": "Ada", "age": 36, "tags": ["math", "engine"], "ok": true, "none": null}',
    "Numbers: 0 1 2 3.14 42 1000 -7 6e23 2024-01-31; def main():\n    return [x for x in range(10)]\n\n",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.   Drei   Leerzeichen.",
    "Le cœur déçu mais l'âme plutôt naïve, où êtes-vous ? Ⅻ ﬁne ½ Å",
    "日本語の文章と中文的句子。한국어 문장도 있습니다. ภาษาไทย",
    "Привет, мир! Γειά σου Κόσμε! שלום עולם مرحبا بالعالم नमस्ते दुनिया",
    "👩‍👩‍👧 🇩🇪 👍🏽 emoji ok 🎉🎉 \t tab\ttab",
] * 4

# Each is written into texts as it stands: parts of tokens, of characters and of markup.
FRAGMENTS = [
    *("<s>", "</s>", "<unk>", "<|end|>", "<|en", "|>", "<tool_call>", "</tool_call>", "<mask>", "<word>"),
    *("<0x41>", "<0xE2>", "▁", "▁▁", "Ġ", "Ċ", "Ã©", "##", "</w>", "[UNK]", "⁇", "\ufffd"),
    *(" ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", " \n ", "\u00a0", "\u3000", "\u2028", "\u200b"),
    *("é", "e\u0301", "Å", "A\u030a", "ﬁ", "Ⅻ", "½", "ſ", "ẛ̣", "각", "각"),
    *("👩\u200d👩\u200d👧", "🇩🇪", "👍🏽", "\u200d", "\ufe0f", "🏳️‍🌈"),
    *("שלום", "مرحبا", "\u202e", "नमस्ते", "ภาษาไทย", "日本語", "中文", "한국어"),
    *(
        "'s",
        "'LL",
        "n't",
        "12345",
        "３",
        "١٢",
        "3.14",
        "Hello",
        "hello",
        " world",
        "foo_bar",
        "日1本",
        "...",
        "!?",
    ),
    *("\0", "\x01", "\x1f", "\x7f", "\x85", "\ud7ff", "\ue000", "\ufffe", "\U00010000", "\U0010ffff"),
]


def texts(max_parts: int = 12) -> st.SearchStrategy[str]:
    """Fragments, characters of all of Unicode, and long runs of blanks, in any order."""
    runs = st.builds(
        lambda blank, count: blank * count, st.sampled_from([" ", "\n", "\t", "a", "é"]), st.integers(1, 70)
    )
    parts = st.one_of(
        st.sampled_from(FRAGMENTS),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
        st.text("abcdefgh ,.", max_size=8),
        runs,
    )
    return st.lists(parts, max_size=max_parts).map("".join)
