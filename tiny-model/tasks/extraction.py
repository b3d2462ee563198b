"""Fields of a sentence as JSON, with the keys that the user asks for."""

from __future__ import annotations

import json
from collections.abc import Callable

from . import words as w
from .base import Draw, Example, listed, turn

Value = str | int | float

FIELDS: dict[str, Callable[[Draw], Value]] = {
    "name": lambda d: w.full_name(d) if d.maybe(0.4) else w.name(d),
    "age": lambda d: d.randint(1, 99),
    "city": w.city,
    "job": lambda d: d.choice(w.JOBS),
    "email": w.email,
    "company": lambda d: w.made_up(d).capitalize() if d.maybe(0.3) else d.choice(w.COMPANIES),
    "product": lambda d: d.choice(w.THINGS + w.FOODS),
    "quantity": lambda d: d.randint(2, 99),
    "price": lambda d: d.randint(1, 999) if d.maybe(0.5) else d.randint(0, 99) + d.randint(1, 9) / 10,
    "colour": lambda d: d.choice(w.COLOURS),
    "animal": lambda d: d.choice(w.ANIMALS),
    "pet": w.name,
    "event": lambda d: d.choice(w.EVENTS),
    "date": w.date,
    "time": w.clock,
}

SYNONYMS = {
    "name": ["person", "full_name", "customer", "first_name"],
    "city": ["town", "location", "place"],
    "job": ["occupation", "role", "profession"],
    "company": ["employer", "firm"],
    "product": ["item", "article"],
    "quantity": ["count", "amount", "number"],
    "price": ["cost", "total"],
    "colour": ["color"],
    "pet": ["pet_name"],
    "date": ["day"],
    "time": ["hour"],
}

SENTENCES = [
    "{name} is {age} years old and lives in {city}.",
    "{name}, {age}, lives in {city}.",
    "My name is {name}, I am {age} and I live in {city}.",
    "I am {name} from {city} and I am {age} years old.",
    "{name} from {city} is {age}.",
    "{name} is {age} years old.",
    "{name} lives in {city}.",
    "{name} is a {job} in {city}.",
    "{name} works as a {job} at {company}.",
    "{name}, {age}, is a {job} and lives in {city}.",
    "In {city}, the {job} {name} works for {company}.",
    "You can reach {name} at {email}.",
    "Please write to {name} in {city} at {email}.",
    "{name}, {job} at {company}, {email}",
    "{name} ({age}) can be reached at {email}.",
    "{name} bought {quantity} {product}s for {price} dollars.",
    "{name} ordered a {colour} {product} for {price} euros.",
    "Order: {quantity} x {product}, {price} euros, to {city}.",
    "The {colour} {product} costs {price} dollars.",
    "A {product} costs {price} dollars.",
    "{company} sold {quantity} {product}s to {name}.",
    "{company} from {city} sells {colour} {product}s for {price} dollars.",
    "The {event} is on {date} at {time} in {city}.",
    "{name} invites you to a {event} on {date} at {time}.",
    "On {date} {name} has a {event} in {city}.",
    "The {event} with {company} starts at {time}.",
    "{name} has a {colour} {animal} called {pet}.",
    "{pet} is a {colour} {animal} and {age} years old.",
    "{name} flies to {city} on {date}.",
]

NUMBERS = {"age": "integer", "quantity": "integer", "price": "number"}


def dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def schema(keys: list[str], fields: list[str]) -> dict[str, object]:
    """A JSON Schema for an object with these keys, all required."""
    properties = {key: {"type": NUMBERS.get(field, "string")} for key, field in zip(keys, fields, strict=True)}
    return {"type": "object", "properties": properties, "required": keys}


def json_fields(draw: Draw) -> Example:
    template = draw.choice(SENTENCES)
    present = sorted((f for f in FIELDS if "{" + f + "}" in template), key=lambda f: template.index("{" + f + "}"))
    values = draw.fresh(
        lambda: {field: FIELDS[field](draw) for field in present},
        lambda made: "json:" + " ".join(map(str, made.values())),
    )
    sentence = template.format(**values)
    fields = draw.sample(present, draw.randint(1, len(present))) if draw.maybe(0.5) else list(present)
    if draw.maybe(0.12):
        fields.insert(draw.randint(0, len(fields)), draw.choice([f for f in FIELDS if f not in present]))
    keys = [draw.choice(SYNONYMS[f]) if f in SYNONYMS and draw.maybe(0.2) else f for f in fields]
    answer = dumps({key: values.get(field) for key, field in zip(keys, fields, strict=True)})
    if fields == present and keys == fields and draw.maybe(0.4):
        question = draw.choice(
            [
                "Turn this into JSON: {s}",
                "Give me this as JSON: {s}",
                "{s}\nAnswer in JSON.",
                "Write this as a JSON object: {s}",
            ]
        ).format(s=sentence)
    elif draw.maybe(0.15):
        question = f"{sentence}\nAnswer with JSON that matches this schema: {dumps(schema(keys, fields))}"
    else:
        question = draw.choice(
            [
                "Extract {k} as JSON: {s}", "Extract the {k} as JSON from this sentence: {s}", "{s}\nReturn JSON with the keys {k}.",
                "Pull out {k} as JSON.\n{s}", "Give me the {k} as JSON: {s}", "JSON with {k}: {s}",
                "{s}\nReply with a JSON object with {k}.", "{s} Extract {k} as JSON.",
            ]
        ).format(k=draw.choice([listed, ", ".join])(keys), s=sentence)  # fmt: skip
    thought = "; ".join(f"{key} is {values.get(field, 'missing')}" for key, field in zip(keys, fields, strict=True))
    return Example("JSON extraction", turn(question, answer, f"In the sentence: {thought}."), check="json")


def field_question(draw: Draw) -> Example:
    """The same reading, answered in plain words."""
    template = draw.choice([s for s in SENTENCES if "{name}" in s and "I " not in s])
    present = [f for f in FIELDS if "{" + f + "}" in template]
    values = draw.fresh(
        lambda: {field: FIELDS[field](draw) for field in present},
        lambda made: "json:" + " ".join(map(str, made.values())),
    )
    field = draw.choice(present)
    question = draw.choice(["{s}\nWhat is the {f}?", "{s} What is the {f}?", "What is the {f} in this sentence? {s}"])
    return Example(
        "reading", turn(question.format(s=template.format(**values), f=field), f"The {field} is {values[field]}.")
    )


def invented_object(draw: Draw) -> Example:
    """`Give me a JSON object for …`: the values stand in the request."""
    fields = draw.sample([f for f in FIELDS if f not in ("pet", "event")], draw.randint(1, 3))
    values = draw.fresh(
        lambda: {field: FIELDS[field](draw) for field in fields},
        lambda made: "json:" + " ".join(map(str, made.values())),
    )
    said = listed([f"{key} {value}" for key, value in values.items()])
    question = draw.choice(
        ["Give me a JSON object with {s}.", "Write a JSON object with {s}.", "Make JSON with {s}.", "JSON, please: {s}"]
    )
    return Example("JSON extraction", turn(question.format(s=said), dumps(values)), check="json")
