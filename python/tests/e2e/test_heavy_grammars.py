"""Schemas and grammars made to take long: each is answered, and nobody else waits for it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import openai
import pytest

from mlxcel import LLM

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.e2e

# Ten times what the slowest of them takes on two busy cores.
DEADLINE = 120.0
STREAMS = 8
TOKENS = 200
MESSAGES: Any = [{"role": "user", "content": "Tell me a story."}]


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def references(each: Any, last: int) -> dict[str, Any]:
    definitions = {f"t{level}": each({"$ref": f"#/$defs/t{level + 1}"}) for level in range(last)}
    return {"$ref": "#/$defs/t0", "$defs": definitions | {f"t{last}": {"type": "string"}}}


def integers(**bounds: int) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "integer"}, **bounds}


SCHEMAS: dict[str, Any] = {
    "a large enum": {"enum": [f"value number {index}" for index in range(100_000)]},
    "deep": nested(60),
    "deeper": nested(100),
    "a reference to itself": {"$ref": "#"},
    "a chain of references": references(lambda next_: next_, 3_000),
    "a tree of references": references(lambda next_: {"type": "array", "prefixItems": [next_] * 4}, 60),
    "references in allOf": references(lambda next_: {"allOf": [next_, next_]}, 30),
    "alternatives in allOf": {
        "type": "object",
        "allOf": [
            {"anyOf": [{"properties": {f"p{one}": {"const": two}}} for two in range(4)]} for one in range(16)
        ],
    },
    "many properties": {
        "type": "object",
        "properties": {f"p{index}": {"type": "integer"} for index in range(2_000)},
    },
    "many patterns": {
        "type": "object",
        "patternProperties": {f"^{a}.*{b}$": {"type": "integer"} for a in "abcdefghij" for b in "abcdefghij"},
    },
    "nested counts": {"type": "string", "pattern": "^((a{1,100}){1,100}){1,100}$"},
    "backtracking": {"type": "string", "pattern": "(a|b)*a(a|b){30}$"},
    "many items": integers(minItems=10**6, maxItems=10**9),
    "a long string": {"type": "string", "minLength": 10**9},
    "lists of lists": integers(minItems=100, maxItems=1000)
    | {"items": integers(minItems=100, maxItems=1000) | {"items": integers(minItems=100, maxItems=1000)}},
}
GRAMMARS: dict[str, dict[str, str]] = {
    "regex: nested counts": {"regex": "(a{1,1000}){1,1000}"},
    "regex: blow-up": {"regex": "(a|b)*a(a|b){200}"},
    "regex: long": {"regex": "abc" * 60_000},
    "regex: alternatives": {"regex": "|".join(f"word{index}[0-9]{{1,9}}" for index in range(15_000))},
    "grammar: a megabyte": {"grammar": "start: " + " ".join(f'"w{index}"' for index in range(130_000))},
    "grammar: many words": {"grammar": "start: " + " ".join(f'"w{index}"' for index in range(25_000))},
    "grammar: ambiguous": {"grammar": 'start: e\ne: e e | "a" | "b" |'},
    "grammar: doubling": {
        "grammar": "start: r0\n"
        + "".join(f'r{n}: r{n + 1} r{n + 1} | "a"\n' for n in range(500))
        + 'r500: "b"'
    },
    "grammar: empty": {
        "grammar": "start: r0\n"
        + "".join(f"r{n}: r{n + 1}? r{n + 1}? r{n + 1}?\n" for n in range(200))
        + 'r200: "b"'
    },
    "grammar: parentheses": {"grammar": "start: " + "(" * 20_000 + '"a"' + ")" * 20_000},
    "grammar: GBNF": {"grammar": "root ::= " + " | ".join(f'"word{index}"' for index in range(15_000))},
}
ASKED = {
    name: {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}
    for name, schema in SCHEMAS.items()
} | {name: {"extra_body": fields} for name, fields in GRAMMARS.items()}


@pytest.fixture(scope="module")
def client(real_binary: Path) -> Iterator[openai.OpenAI]:
    args = ("--n-parallel", str(2 * STREAMS))
    with LLM("mlxcel-tiny", binary=real_binary, extra_args=args) as llm:
        yield llm.openai_client.with_options(timeout=DEADLINE, max_retries=0)


def test_each_is_answered_and_streams_go_on(client: openai.OpenAI) -> None:
    """Every one at once, beside streams that must lose nothing."""
    create: Any = client.chat.completions.create
    begun, told = threading.Barrier(STREAMS + 1, timeout=DEADLINE), [0] * STREAMS
    answers: dict[str, str | openai.APIStatusError] = {}

    def stream(index: int) -> None:
        fields = {"ignore_eos": True, "logprobs": True}
        body: Any = {"model": "m", "messages": MESSAGES, "max_tokens": TOKENS, "stream": True}
        chunks = create(**body, temperature=1, seed=index, extra_body=fields)
        first = True
        for chunk in chunks:
            for choice in chunk.choices:
                told[index] += len(choice.logprobs.content) if choice.logprobs else 0
            if first:
                begun.wait()
            first = False

    def ask(name: str) -> None:
        try:
            answer = create(model="m", messages=MESSAGES, max_tokens=8, temperature=1, **ASKED[name])
        except openai.APIStatusError as error:
            answers[name] = error
        else:
            answers[name] = answer.choices[0].finish_reason

    streams = [threading.Thread(target=stream, args=(index,)) for index in range(STREAMS)]
    askers = [threading.Thread(target=ask, args=(name,)) for name in ASKED]
    for thread in streams:
        thread.start()
    begun.wait()
    for thread in askers:
        thread.start()
    for thread in [*streams, *askers]:
        thread.join(DEADLINE)
    assert told == [TOKENS] * STREAMS
    assert answers.keys() == ASKED.keys()
    for name, answer in answers.items():
        if isinstance(answer, str):
            assert answer in ("stop", "length"), name
            continue
        # Busy is one that others took the time of.
        assert answer.status_code in (400, 503), (name, answer)
        reasons = ("complex", "invalid", "recursion")
        assert answer.status_code == 503 or any(reason in str(answer) for reason in reasons), (name, answer)


@pytest.mark.parametrize("name", ["a large enum", "grammar: a megabyte"])
def test_what_is_too_long_says_how_long_it_may_be(client: openai.OpenAI, name: str) -> None:
    create: Any = client.chat.completions.create
    with pytest.raises(openai.BadRequestError, match="the limit is"):
        create(model="m", messages=MESSAGES, max_tokens=8, **ASKED[name])
