"""The two types that every task is written with: `Draw` in, `Example` out."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

T = TypeVar("T")
Split = Literal["train", "heldout"]
Check = Literal["exact", "json", "tool_calls"]

HELD_OUT_SHARE = 10  # one problem in ten is never trained on


def split_of(key: str) -> Split:
    """The split a problem belongs to, decided by its identity and nothing else.

    A hash and not a draw: the same problem lands in the same split from whatever
    task, phrasing, seed or conversation it turns up in.
    """
    digest = hashlib.sha256(key.encode()).digest()
    return "heldout" if int.from_bytes(digest[:8], "big") % HELD_OUT_SHARE == 0 else "train"


class Draw(random.Random):
    """A seeded random generator that only lets problems of its own split through."""

    def __init__(self, seed: int, split: Split) -> None:
        super().__init__(seed)
        self.split = split

    def fresh(self, make: Callable[[], T], key: Callable[[T], str]) -> T:
        """Calls `make` until what it makes belongs to this split."""
        for _ in range(10_000):
            made = make()
            if split_of(key(made)) == self.split:
                return made
        raise ValueError(f"no problem of the {self.split} split in 10,000 draws: {key(made)!r}")

    def maybe(self, probability: float) -> bool:
        return self.random() < probability


@dataclass(frozen=True)
class Example:
    """One conversation whose last message is the answer to learn, or one plain text.

    `messages` and `tools` are in OpenAI's shape; `check` says how an answer is
    compared with the expected one.
    """

    task: str
    messages: tuple[dict[str, Any], ...] = ()
    tools: tuple[dict[str, Any], ...] = ()
    text: str = ""
    check: Check = "exact"


def turn(question: str, answer: str, thought: str = "") -> tuple[dict[str, Any], ...]:
    """One exchange; `thought` is what the model writes when thinking is switched on."""
    reply = {"role": "assistant", "content": answer}
    if thought:
        reply["reasoning_content"] = thought
    return ({"role": "user", "content": question}, reply)


def casual(draw: Draw, question: str) -> str:
    """The question as people type it: sometimes hurried, sometimes polite."""
    if draw.maybe(0.6):
        return question
    lower_first = question[0].lower() + question[1:]
    typed = [
        lower_first,
        lower_first.rstrip("?."),
        question.rstrip("?."),
        "Please " + lower_first,
        "Hi! " + question,
        "Hey, " + lower_first,
    ]
    if question[-1] in ".?!":  # after a list it would read as one more item
        typed += [question + " Thanks!", question + " Please."]
    return draw.choice(typed)


def listed(words: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]
