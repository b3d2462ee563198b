"""Small talk with a memory: what was said earlier in the conversation."""

from __future__ import annotations

from . import words as w
from .base import Draw, Example, casual, turn

# What people tell, the acknowledgement, how they ask for it later, the answer.
STATEMENTS = {
    "name": (
        w.name,
        ["My name is {v}.", "I am {v}.", "Hi, I'm {v}.", "Call me {v}.", "Hello, my name is {v}!"],
        "Nice to meet you, {v}!",
        ["What is my name?", "Who am I?", "Do you remember my name?", "What's my name?"],
        "Your name is {v}.",
    ),
    "city": (
        w.city,
        ["I live in {v}.", "My home is {v}.", "I am from {v}."],
        "{v} sounds like a nice place.",
        ["Where do I live?", "Which city do I live in?", "Where am I from?"],
        "You live in {v}.",
    ),
    "age": (
        lambda d: str(d.randint(5, 99)),
        ["I am {v} years old.", "My age is {v}."],
        "Thank you, I will remember that you are {v}.",
        ["How old am I?", "What is my age?"],
        "You are {v} years old.",
    ),
    "colour": (
        lambda d: d.choice(w.COLOURS),
        ["My favourite colour is {v}.", "My favorite color is {v}.", "I like the colour {v} most."],
        "{v} is a lovely colour.",
        ["What is my favourite colour?", "Which colour do I like?", "What is my favorite color?"],
        "Your favourite colour is {v}.",
    ),
    "job": (
        lambda d: d.choice(w.JOBS),
        ["I work as a {v}.", "My job is {v}."],
        "It must be interesting to work as a {v}.",
        ["What is my job?", "What do I work as?"],
        "You work as a {v}.",
    ),
    "pet": (
        w.name,
        ["My dog is called {v}.", "I have a dog called {v}.", "My dog's name is {v}."],
        "Say hello to {v} from me!",
        ["What is my dog called?", "What is the name of my dog?"],
        "Your dog is called {v}.",
    ),
    "food": (
        lambda d: d.choice(w.FOODS),
        ["My favourite food is {v}.", "I love {v}."],
        "Good choice, {v} is tasty.",
        ["What is my favourite food?", "What do I love to eat?"],
        "Your favourite food is {v}.",
    ),
    "number": (
        lambda d: str(d.randint(10, 9999)),
        ["Remember the number {v}.", "The secret number is {v}.", "Please remember {v}."],
        "I will remember {v}.",
        ["What is the secret number?", "Which number did I tell you?", "What was the number?"],
        "The number is {v}.",
    ),
}

SMALL_TALK = [
    ("How are you?", "I am fine, thank you."),
    ("Thanks!", "You are welcome!"),
    ("Nice.", "Glad you like it."),
    ("Okay.", "Okay!"),
    ("Tell me something.", "I am a tiny model, and I like small tasks."),
]


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def memory(draw: Draw) -> Example:
    """One to four statements, something in between perhaps, then the question."""
    kinds = draw.sample(list(STATEMENTS), draw.choice([1, 1, 2, 2, 3, 4]))
    values = draw.fresh(
        lambda: {kind: STATEMENTS[kind][0](draw) for kind in kinds},
        lambda made: "memory:" + " ".join(made.values()),
    )
    messages: tuple[dict[str, str], ...] = ()
    for kind in kinds:
        _, tell, acknowledge, _, _ = STATEMENTS[kind]
        messages += turn(draw.choice(tell).format(v=values[kind]), _capital(acknowledge.format(v=values[kind])))
        if draw.maybe(0.25):
            messages += turn(*draw.choice(SMALL_TALK))
    for kind in draw.sample(kinds, draw.randint(1, min(2, len(kinds)))):
        _, _, _, ask, recall = STATEMENTS[kind]
        answer = recall.format(v=values[kind])
        messages += turn(casual(draw, draw.choice(ask)), answer, f"The user told me: {values[kind]}.")
    if draw.maybe(0.15):
        missing = draw.choice([kind for kind in STATEMENTS if kind not in kinds])
        messages += turn(draw.choice(STATEMENTS[missing][3]), "You have not told me that yet.")
    return Example("memory", messages)


def list_editing(draw: Draw) -> Example:
    """A list that the conversation changes: sort, reverse, add, count."""
    items = draw.fresh(lambda: w.words(draw, draw.randint(3, 5)), lambda ws: "list:" + " ".join(ws))
    messages = turn(
        draw.choice(["Here is a list: {s}", "My list: {s}", "Remember this list: {s}"]).format(s=", ".join(items)),
        f"Your list has {len(items)} items.",
    )
    for _ in range(draw.randint(1, 3)):
        step = draw.choice(["reverse", "add", "count", "show", "last"])
        if step == "reverse":
            items = items[::-1]
            messages += turn(draw.choice(["Reverse it.", "Now reverse it."]), ", ".join(items))
        elif step == "add":
            extra = draw.choice([item for item in w.WORDS if item not in items])
            items = [*items, extra]
            messages += turn(draw.choice([f"Add {extra}.", f"Now add {extra} to it."]), ", ".join(items))
        elif step == "count":
            messages += turn("How many items is that?", f"{len(items)} items")
        elif step == "show":
            messages += turn(draw.choice(["Show me the list.", "What is in my list?"]), ", ".join(items))
        else:
            messages += turn("Which one is last?", items[-1])
    return Example("list editing", messages)
