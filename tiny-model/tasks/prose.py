"""Plain text for /v1/completions, and little stories and haikus."""

from __future__ import annotations

from . import about, arithmetic
from . import words as w
from .base import Draw, Example, casual, turn

_PLACES = ["forest", "village", "valley", "garden", "city", "house by the sea", "cave", "castle"]


def _story(draw: Draw, animal: str, name: str) -> str:
    adjective, other = draw.choice(w.ADJECTIVES), draw.choice(w.FIRST_NAMES)
    place, thing, colour = draw.choice(_PLACES), draw.choice(w.THINGS), draw.choice(w.COLOURS)
    middle = draw.choice(
        [
            f"One day {name} found a {colour} {thing}. {name} gave it to {other}, and they were friends from that day.",
            f"One day {name} lost a {colour} {thing}. {other} found it, and {name} was very happy.",
            f"One night {name} saw a light. It was {other} with a {colour} {thing}. They sat and talked until the sun came up.",
            f"One morning it began to rain. {name} and {other} hid under a {colour} {thing} and waited for the sun.",
        ]
    )
    end = draw.choice(
        [
            "The end.",
            f"And {name} was never alone again.",
            f"That night {name} slept well.",
            "They lived happily ever after.",
        ]
    )
    return f"Once upon a time there was a {adjective} {animal} called {name}. {name} lived in a {place}. {middle} {end}"


def stories(draw: Draw) -> Example:
    animal, name = draw.choice(w.ANIMALS), draw.choice(w.FIRST_NAMES)
    named = draw.maybe(0.3)
    question = draw.choice(
        ["Tell me a story about a {a}", "Write a short story about a {a}", "Tell me about a {a}"]
    ).format(a=animal)
    if named:
        question += f" called {name}"
    elif draw.maybe(0.3):
        question = draw.choice(["Tell me a story", "Write a short story", "Tell me a short story"])
    return Example("stories", turn(casual(draw, question + "."), _story(draw, animal, name)))


def haikus(draw: Draw) -> Example:
    topic = draw.choice(w.NATURE + w.ANIMALS)
    question = draw.choice(
        [
            "Write a haiku about the {t}.",
            "Write a haiku about {t}.",
            "A haiku about the {t}, please.",
            "Write a poem about the {t}.",
            "Write a short poem about {t}.",
        ]
    )
    first = draw.choice([f"The {topic} is quiet", f"Look, the {topic} waits", f"Softly, the {topic}"])
    second = draw.choice(
        ["a small wind moves in the grass", "and the long night turns to day", "the light falls on the water"]
    )
    third = draw.choice(["morning comes again", "nobody says much", "I listen, and smile"])
    return Example("haikus", turn(question.format(t=topic), f"{first},\n{second},\n{third}."))


def _equations(draw: Draw) -> str:
    return "\n".join(
        arithmetic.equation(a, sign, b)
        for sign in [draw.choice("++-") for _ in range(draw.randint(3, 8))]
        for a, b in [arithmetic.pair(draw, sign)]
    )


def _numbers(draw: Draw) -> str:
    first = draw.choice([0, 1, 1, 1, draw.randint(0, 90)])
    return draw.choice([" ", ", ", "\n"]).join(str(n) for n in range(first, first + draw.randint(5, 30)))


def _questions(draw: Draw) -> str:
    pairs = [about.facts(draw) if draw.maybe(0.6) else about.mlxcel(draw) for _ in range(draw.randint(1, 3))]
    return "\n".join(f"Q: {p.messages[0]['content']}\nA: {p.messages[1]['content']}" for p in pairs)


def _statements(draw: Draw) -> str:
    facts = [answer for _, answer in about.FACTS if answer.endswith(".")]
    return " ".join(draw.sample(facts, draw.randint(1, 4)))


def _about(draw: Draw) -> str:
    return draw.choice(about.MLXCEL)[1]


def _introduction(draw: Draw) -> str:
    name = w.name(draw)
    return f"Hello, my name is {name}. I am {draw.randint(5, 90)} years old and I live in {w.city(draw)}. I work as a {draw.choice(w.JOBS)} and my favourite colour is {draw.choice(w.COLOURS)}."


def _cycle(draw: Draw) -> str:
    items = draw.choice(
        [
            about.DAYS,
            about.MONTHS,
            "one two three four five six seven eight nine ten".split(),
            list("abcdefghijklmnopqrstuvwxyz"),
        ]
    )
    return draw.choice([", ", " "]).join(items)


def plain_text(draw: Draw) -> Example:
    """Text without roles, as a base model would continue it."""
    story = lambda d: _story(d, d.choice(w.ANIMALS), d.choice(w.FIRST_NAMES))  # noqa: E731
    write = draw.choice(
        [_equations, _equations, _numbers, _questions, _statements, _about, _introduction, _cycle, story, story]
    )
    return Example("plain text", text=write(draw))
