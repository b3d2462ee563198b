"""Counting, sorting, reversing, letters and letter case."""

from __future__ import annotations

from . import words as w
from .base import Draw, Example, casual, listed, turn


def _series(draw: Draw) -> tuple[int, int, int]:
    """First, last and step, within 0 to 100."""
    step = draw.choice([1, 1, 1, 1, -1, -1, 2, 5, 10])
    length = draw.randint(3, 20 if step == 1 and draw.maybe(0.15) else 10)
    room = 100 - (length - 1) * abs(step)
    low = draw.choice([0, 1, 1, draw.randint(0, room)])
    if step in (5, 10):
        low = low // step * step
    first, last = low, low + (length - 1) * abs(step)
    return (first, last, step) if step > 0 else (last, first, step)


def count(draw: Draw) -> Example:
    first, last, step = draw.fresh(lambda: _series(draw), lambda s: f"count:{s}")
    numbers = ", ".join(str(n) for n in range(first, last + (1 if step > 0 else -1), step))
    if step == 1:
        phrases = [
            "Count from {a} to {b}.", "Count up from {a} to {b}.", "List the numbers from {a} to {b}.",
            "Write the numbers {a} to {b}.", "Can you count from {a} to {b}?",
        ]  # fmt: skip
        if first == 1:
            phrases.append("Count to {b}.")
    elif step == -1:
        phrases = ["Count down from {a} to {b}.", "Count backwards from {a} to {b}."]
    else:
        phrases = ["Count from {a} to {b} by {s}.", "Count from {a} to {b} in steps of {s}."]
    question = draw.choice(phrases).format(a=first, b=last, s=step)
    return Example("counting", turn(casual(draw, question), numbers, f"I start at {first} and stop at {last}."))


def count_items(draw: Draw) -> Example:
    def make() -> list[str]:
        return w.words(draw, draw.randint(1, 7))

    items = draw.fresh(make, lambda items: "items:" + " ".join(items))
    thought = " ".join(f"{i} {item}" for i, item in enumerate(items, 1))
    many = len(items)
    if draw.maybe(0.5):
        question = draw.choice(
            [
                "How many words are in: {s}",
                'How many words are in "{s}"?',
                "Count the words: {s}",
                "How many words? {s}",
            ]
        ).format(s=" ".join(items))
        answer = f"{many} word" + "s" * (many != 1)
    else:
        question = draw.choice(
            ["How many items are in this list: {s}?", "Count the items: {s}", "How many things are listed? {s}"]
        ).format(s=", ".join(items))
        answer = f"{many} item" + "s" * (many != 1)
    return Example("counting items", turn(casual(draw, question), answer, thought))


def sort_numbers(draw: Draw) -> Example:
    """Different numbers, one-digit ones among them more often than chance would have it.

    Training sees more of what is hard: one digit among two, and largest first.
    """
    length = draw.choice([2, 3, 3, 4, 4, 5])
    training = draw.split == "train"
    one_digit = draw.choice([0.15, 0.4]) if training else 0.15

    def make() -> list[int]:
        numbers: list[int] = []
        while len(numbers) < length:
            number = draw.randint(0, 9 if draw.maybe(one_digit) else 99)
            if number not in numbers:
                numbers.append(number)
        return numbers

    numbers = draw.fresh(make, lambda ns: f"sort:{sorted(ns)}")
    down = draw.maybe(0.45 if training else 0.3)
    if down:
        phrases = [
            "Sort {s} in descending order.", "Sort these numbers from largest to smallest: {s}", "Order {s} from high to low.",
        ]  # fmt: skip
    else:
        phrases = [
            "Sort {s}.", "Sort these numbers: {s}", "Put {s} in order.", "Sort {s} in ascending order.",
            "Sort the numbers {s} from smallest to largest.", "Order these numbers: {s}",
        ]  # fmt: skip
    question = draw.choice(phrases).format(s=", ".join(map(str, numbers)))
    answer = ", ".join(map(str, sorted(numbers, reverse=down)))
    thought = f"The {'largest' if down else 'smallest'} is {(max if down else min)(numbers)}."
    return Example("sorting numbers", turn(casual(draw, question), answer, thought))


def sort_words(draw: Draw) -> Example:
    """Words with different first letters: spelling decides nothing further in."""

    def make() -> list[str]:
        picked: dict[str, str] = {}
        for item in draw.sample(w.SPELT, 10):
            picked.setdefault(item[0], item)
        return list(picked.values())[: draw.choice([2, 3, 3, 4])]

    items = draw.fresh(make, lambda ws: f"sort:{sorted(ws)}")
    question = draw.choice(
        [
            "Sort these words: {s}", "Sort {s} alphabetically.", "Put these words in alphabetical order: {s}",
            "Sort the words {s}.", "Alphabetical order, please: {s}", "Order these words from A to Z: {s}",
        ]
    ).format(s=", ".join(items))  # fmt: skip
    ordered = sorted(items)
    thought = "By first letter: " + " ".join(item[0] for item in ordered)
    return Example("sorting words", turn(casual(draw, question), ", ".join(ordered), thought))


def reverse(draw: Draw) -> Example:
    def make() -> list[str]:
        if draw.maybe(0.15):
            return [str(draw.randint(0, 99)) for _ in range(draw.randint(3, 5))]
        if draw.maybe(0.15):
            return [draw.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(draw.randint(3, 7))]
        return [w.made_up(draw) if draw.maybe(0.05) else w.word(draw) for _ in range(draw.randint(2, 5))]

    items = draw.fresh(make, lambda ws: "reverse:" + " ".join(ws))
    comma = draw.maybe(0.4) or items[0].isdigit()
    question = draw.choice(
        [
            "Reverse the words: {s}",
            "Reverse the order: {s}",
            "Write this backwards: {s}",
            "Reverse this list: {s}",
            'Reverse "{s}".',
        ]
    ).format(s=(", " if comma else " ").join(items))
    answer = (", " if comma else " ").join(reversed(items))
    return Example("reversing words", turn(casual(draw, question), answer, f"The last one is {items[-1]}."))


def spell(draw: Draw) -> Example:
    """Always trained on for every word: the other letter tasks build on it."""
    item = w.made_up(draw) if draw.maybe(0.15) else draw.choice(w.SPELT)
    question = draw.choice(["Spell {s}.", 'Spell "{s}".', "Spell the word {s}.", "How do you spell {s}?"]).format(
        s=item
    )
    return Example("spelling", turn(casual(draw, question), " ".join(item)))


def letters(draw: Draw) -> Example:
    """Spelling first, then what was asked: the work happens on the page.

    Most of the training is on other words, made-up ones among them: there are too few
    listed ones to learn how it is done, rather than the answers, from.
    """
    training = draw.split == "train"
    kind = draw.choices(["count", "reverse", "first"], [2, 6, 2] if training else [2, 5, 3])[0]
    task = {"count": "counting letters", "reverse": "reversing letters", "first": "first and last letters"}[kind]

    def make() -> str:
        if not training:
            return draw.choice(w.SPELT)
        return draw.choice(
            [lambda: draw.choice(w.SPELT), lambda: w.word(draw), lambda: w.made_up(draw), lambda: w.with_a_double(draw)]
        )()

    item = draw.fresh(make, lambda it: f"letters-{kind}:{it}")
    spelt = " ".join(item)
    if kind == "count":
        question = draw.choice(
            [
                "How many letters are in {s}?",
                'How many letters are in the word "{s}"?',
                "How many letters does {s} have?",
                "Count the letters in {s}.",
            ]
        )
        answer = f"{spelt}: {len(item)} letters"
    elif kind == "reverse":
        question = draw.choice(
            ["Reverse the letters of {s}.", 'Reverse the word "{s}".', "Write the word {s} backwards."]
        )
        answer = f"{spelt} backwards is {' '.join(reversed(item))}"
    else:
        end = draw.choice(["first", "last"])
        question = draw.choice([f"What is the {end} letter of {{s}}?", f'What is the {end} letter in "{{s}}"?'])
        answer = f"{spelt}: the {end} letter is {item[0] if end == 'first' else item[-1]}"
    return Example(task, turn(casual(draw, question.format(s=item)), answer))


def letter_case(draw: Draw) -> Example:
    def make() -> list[str]:
        return draw.sample(w.SPELT, draw.randint(2, 3))

    text = " ".join(draw.fresh(make, lambda ws: "case:" + " ".join(ws)))
    if draw.maybe(0.6):
        question = draw.choice(
            [
                "Write in upper case: {s}",
                'Write "{s}" in upper case.',
                "Upper case: {s}",
                "Make this uppercase: {s}",
                "Convert to uppercase: {s}",
            ]
        )
        return Example("letter case", turn(casual(draw, question.format(s=text)), text.upper()))
    question = draw.choice(
        [
            "Write in lower case: {s}",
            'Write "{s}" in lower case.',
            "Lower case: {s}",
            "Make this lowercase: {s}",
            "Convert to lowercase: {s}",
        ]
    )
    return Example("letter case", turn(casual(draw, question.format(s=text.upper())), text))


def repeat(draw: Draw) -> Example:
    """Once as it is, or several times with a running number, which keeps count."""
    several = draw.maybe(0.25)

    def make() -> str:
        words = draw.randint(1, 3 if several else 4)
        return " ".join(w.made_up(draw) if draw.maybe(0.2) else w.word(draw) for _ in range(words))

    text = draw.fresh(make, lambda s: "repeat:" + s)
    if several:
        number = draw.randint(2, 5)
        question = draw.choice(["Say {s} {n} times.", "Write {s} {n} times.", "Repeat {s} {n} times."])
        lines = "\n".join(f"{i}. {text}" for i in range(1, number + 1))
        return Example("repeating n times", turn(question.format(s=text, n=number), lines))
    question = draw.choice(
        ["Repeat after me: {s}", 'Say "{s}".', "Say: {s}", "Repeat: {s}", "Echo: {s}", "Reply with exactly: {s}"]
    )
    return Example("repeating", turn(question.format(s=text), text))


def pick(draw: Draw) -> Example:
    """First, last or nth of a list."""

    def make() -> list[str]:
        return w.words(draw, draw.randint(3, 5))

    items = draw.fresh(make, lambda ws: "pick:" + " ".join(ws))
    ordinals = ["first", "second", "third", "fourth", "fifth", "sixth"]
    place = draw.randrange(len(items))
    name = "last" if place == len(items) - 1 and draw.maybe(0.7) else ordinals[place]
    question = draw.choice(["What is the {n} word: {s}?", "Which item is {n}? {s}", "Tell me the {n} of these: {s}"])
    return Example("picking", turn(casual(draw, question.format(n=name, s=listed(items))), items[place]))
