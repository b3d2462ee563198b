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

import chat
from tasks import about, arithmetic, dialogue, extraction, ordering, prose, tools
from tasks.base import Draw, Example, Split

# How often a document of each task is drawn. The unit is arbitrary.
TASKS: dict[Callable[[Draw], Example], float] = {
    arithmetic.sums: 8,
    arithmetic.two_digit_sums: 24,
    arithmetic.differences: 16,
    arithmetic.products: 4,
    arithmetic.worksheet: 8,
    arithmetic.second_step: 4,
    arithmetic.comparisons: 6,
    ordering.count: 6,
    ordering.count_items: 5,
    ordering.sort_numbers: 22,
    ordering.sort_words: 6,
    ordering.reverse: 8,
    ordering.spell: 3,
    ordering.letters: 26,
    ordering.letter_case: 9,
    ordering.repeat: 18,
    ordering.pick: 2,
    extraction.json_fields: 10,
    extraction.field_question: 1,
    extraction.invented_object: 2,
    dialogue.memory: 7,
    dialogue.list_editing: 3,
    tools.tool_call: 24,
    tools.parallel_calls: 1,
    tools.tool_answer: 9,
    tools.no_tool_fits: 13,
    about.mlxcel: 3,
    about.self_and_greetings: 4,
    about.facts: 5,
    about.unknown: 2,
    prose.stories: 2,
    prose.haikus: 1,
    prose.plain_text: 3,
}

# The row of the model card that each task's examples are counted under: their own
# `Example.task`. Stories and haikus are free text and have no right answer.
EVALUATED = (
    arithmetic.two_digit_sums, arithmetic.differences, arithmetic.products, arithmetic.worksheet,
    arithmetic.second_step, arithmetic.comparisons, ordering.count, ordering.count_items,
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
DIRECTLY = "I can answer this directly."
# What may come earlier in the same conversation. Not two memories: the second would
# claim not to know what the first was told.
_MIXABLE = [
    task for task in TASKS if task not in (prose.plain_text, dialogue.memory) and task.__module__ != tools.__name__
]


def _weighted(draw: Draw, tasks: list[Callable[[Draw], Example]]) -> Callable[[Draw], Example]:
    return draw.choices(tasks, [TASKS[task] for task in tasks])[0]


def conversation(draw: Draw) -> Example:
    """A training document: one task, or several in one conversation, under a system prompt or none."""
    example = _weighted(draw, list(TASKS))(draw)
    if example.text:
        return example
    if draw.maybe(0.2):
        before = [_weighted(draw, _MIXABLE)(draw) for _ in range(draw.randint(1, 3))]
        messages = tuple(message for earlier in before for message in earlier.messages)
        example = replace(example, messages=messages + example.messages)
    if draw.maybe(0.3):
        system = {"role": "system", "content": draw.choice(SYSTEM_PROMPTS)}
        example = replace(example, messages=(system, *example.messages))
    elif draw.maybe(0.1) and not example.tools:
        # Tools that lie idle must not change an answer.
        idle = tools.generic(draw)
        example = replace(example, tools=(tools.spell(draw, idle).declaration,))
    return example


def document(draw: Draw) -> str:
    """One training document as text, with thinking in the last answer of one in six."""
    example = conversation(draw)
    if example.text:
        return example.text
    thinking = draw.maybe(0.16)
    messages = [{k: v for k, v in m.items() if k != "reasoning_content"} for m in example.messages]
    if thinking:
        messages[-1]["reasoning_content"] = example.messages[-1].get("reasoning_content", DIRECTLY)
    return chat.render(messages, list(example.tools))


def documents(seed: int, split: Split = "train") -> Iterator[str]:
    draw = Draw(seed, split)
    while True:
        yield document(draw)


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
