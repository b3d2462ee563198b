"""Writes the text that mlxcel-tiny is trained on, and its held-out problems.

    python tiny-model/generate.py --show 3            # examples of every task
    python tiny-model/generate.py --split heldout --task "JSON extraction" --show 10

The same seed gives the same text. What is held out is decided by a hash of the
problem itself (`tasks.base.split_of`), so no problem is in both splits.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import chat
from tasks import about, arithmetic, dialogue, extraction, ordering, prose, tools
from tasks.base import Draw, Example

# How often a document of each task is drawn. The unit is arbitrary.
TASKS: dict[Callable[[Draw], Example], float] = {
    arithmetic.sums: 10,
    arithmetic.two_digit_sums: 22,
    arithmetic.differences: 16,
    arithmetic.negative_differences: 12,
    arithmetic.products: 4,
    arithmetic.worksheet: 10,
    arithmetic.second_step: 8,
    arithmetic.comparisons: 28,
    ordering.count: 10,
    ordering.count_items: 6,
    ordering.sort_numbers: 32,
    ordering.sort_words: 12,
    ordering.reverse: 30,
    ordering.spell: 6,
    ordering.letters: 40,
    ordering.letter_case: 8,
    ordering.repeat: 14,
    ordering.pick: 2,
    extraction.json_fields: 14,
    extraction.field_question: 3,
    extraction.invented_object: 2,
    dialogue.memory: 12,
    dialogue.list_editing: 3,
    tools.tool_call: 24,
    tools.tool_session: 24,
    tools.parallel_calls: 1,
    tools.tool_answer: 6,
    tools.no_tool_fits: 16,
    about.mlxcel: 3,
    about.self_and_greetings: 6,
    about.facts: 6,
    about.unknown: 3,
    prose.stories: 1.5,
    prose.haikus: 1,
    prose.plain_text: 2,
}

# The row of the model card that each task's examples are counted under: their own
# `Example.task`. Stories and haikus are free text and have no right answer.
EVALUATED = (
    arithmetic.two_digit_sums, arithmetic.differences, arithmetic.negative_differences, arithmetic.products,
    arithmetic.worksheet, arithmetic.second_step, arithmetic.comparisons, ordering.count, ordering.count_items,
    ordering.sort_numbers, ordering.sort_words, ordering.reverse, ordering.letters, ordering.letter_case,
    ordering.repeat, ordering.pick, extraction.json_fields, extraction.field_question, dialogue.memory,
    dialogue.list_editing, tools.tool_call, tools.tool_answer, tools.no_tool_fits, about.mlxcel,
    about.self_and_greetings, about.facts, about.unknown,
)  # fmt: skip

SYSTEM_PROMPTS = [
    "You are a helpful assistant.", "You are a helpful assistant.", "You are mlxcel-tiny.", "Be brief.",
    "Answer in one sentence.", "You are a friendly assistant.", "You answer questions.", "Be precise.",
    "You are a careful assistant. Answer only what is asked.", "Use the tools when they help.",
]  # fmt: skip
LONG = 2048  # tokens from which on a row is called long
TOKENS_A_TASK = 60  # in a conversation, more or less
DIRECTLY = "I can answer this directly."
# What may come earlier in the same conversation. Not two memories: the second would
# claim not to know what the first was told.
_MIXABLE = [
    task for task in TASKS if task not in (prose.plain_text, dialogue.memory) and task.__module__ != tools.__name__
]


def _weighted(draw: Draw, tasks: list[Callable[[Draw], Example]]) -> Callable[[Draw], Example]:
    return draw.choices(tasks, [TASKS[task] for task in tasks])[0]


def earlier(draw: Draw, tasks: int) -> tuple[dict[str, Any], ...]:
    """What came before in a conversation: so many other tasks. Only a last answer shows its thinking."""
    messages = [message for _ in range(tasks) for message in _weighted(draw, _MIXABLE)(draw).messages]
    return tuple({key: value for key, value in m.items() if key != "reasoning_content"} for m in messages)


def conversation(draw: Draw, tokens: int) -> Example:
    """A training document: one task, or several in one conversation, under a system prompt or none.

    A good part of what is written for long rows is long conversations, up to about so many tokens.
    """
    example = _weighted(draw, list(TASKS))(draw)
    if example.text:
        return example
    if tokens >= LONG and draw.maybe(0.5):
        before = draw.randint(8, tokens // TOKENS_A_TASK)
    else:
        before = draw.randint(1, 3) if draw.maybe(0.2) else 0
    example = replace(example, messages=earlier(draw, before) + example.messages)
    if draw.maybe(0.3):
        system = {"role": "system", "content": draw.choice(SYSTEM_PROMPTS)}
        example = replace(example, messages=(system, *example.messages))
    elif draw.maybe(0.1) and not example.tools:
        # Tools that lie idle must not change an answer.
        idle = tools.generic(draw)
        example = replace(example, tools=(tools.spell(draw, idle).declaration,))
    return example


def document(draw: Draw, tokens: int) -> str:
    """One training document as text, with thinking in the last answer of one in eight."""
    example = conversation(draw, tokens)
    if example.text:
        return example.text
    thinking = draw.maybe(0.12)
    messages = [{k: v for k, v in m.items() if k != "reasoning_content"} for m in example.messages]
    if thinking:
        messages[-1]["reasoning_content"] = example.messages[-1].get("reasoning_content", DIRECTLY)
    return chat.render(messages, list(example.tools))


def documents(seed: int, tokens: int = 256) -> Iterator[str]:
    """Training documents without end, for rows of so many tokens."""
    draw = Draw(seed, "train")
    while True:
        yield document(draw, tokens)


def held_out(task: Callable[[Draw], Example], count: int, seed: int = 1) -> list[Example]:
    """Problems of one task that training never sees. The last message is the expected answer."""
    draw = Draw(seed, "heldout")
    return [task(draw) for _ in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=["train", "heldout"], default="train")
    parser.add_argument("--task", help="only the task of this name")
    parser.add_argument("--show", type=int, default=3, metavar="N", help="examples a task")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = Draw(options.seed, options.split)
    for task in TASKS:
        examples = [task(draw) for _ in range(options.show)]
        if options.task in (None, examples[0].task):
            print(f"=== {examples[0].task} ({task.__name__})")
            for example in examples:
                print(example.text or chat.render(list(example.messages), list(example.tools)))


if __name__ == "__main__":
    main()
