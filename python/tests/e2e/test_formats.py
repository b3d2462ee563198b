"""`response_format`, partial objects and events with the real binary and the built-in model."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections import defaultdict
from datetime import date  # noqa: TC003 - pydantic wants it
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Literal

import openai
import pytest
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from mlxcel import (
    LLM,
    AsyncLLM,
    Finish,
    MlxcelTruncatedError,
    ReasoningDelta,
    Result,
    TextDelta,
    ToolCallDelta,
    Usage,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.e2e

ASK = "Extract name and age as JSON: Anna is 31 years old."
THINK: dict[str, Any] = {"chat_template_kwargs": {"enable_thinking": True}}
ADD: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
    },
}


class Person(BaseModel):
    name: str
    age: Annotated[int, Field(ge=0)]


@dataclasses.dataclass
class Named:
    name: str
    age: int = 0


class Both(TypedDict):
    name: str
    age: int


class Colour(Enum):
    RED = "red"
    GREEN = "green"


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    bone: bool


class Tree(BaseModel):
    value: bool
    children: list[Tree] = Field(default=[], max_length=1)


class Pet(BaseModel):
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    seen: set[Colour] = Field(max_length=2)
    born: date | None


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def llm(real_binary: Path) -> Iterator[LLM]:
    with LLM("mlxcel-tiny", binary=real_binary) as running:
        yield running


@pytest.mark.parametrize("method", ["chat", "generate"])
@pytest.mark.parametrize(
    ("wanted", "value"),
    [
        (Person, Person(name="Anna", age=31)),
        (Named, Named("Anna", 31)),
        (Both, {"name": "Anna", "age": 31}),
        (SCHEMA, {"name": "Anna", "age": 31}),
    ],
    ids=["model", "dataclass", "typeddict", "schema"],
)
def test_the_answer_as_a_value(llm: LLM, method: str, wanted: Any, value: Any) -> None:
    answer = getattr(llm, method)(ASK, response_format=wanted, temperature=0, max_tokens=60)
    assert answer.parsed == value
    assert type(answer.parsed) is type(value)
    for other in (pickle.loads(pickle.dumps(answer)), copy.deepcopy(answer)):
        assert (other, other.parsed, other.usage) == (answer, value, answer.usage)


@pytest.mark.parametrize(
    ("wanted", "kind"),
    [
        (Colour, Colour),
        (Literal["yes", "no"], str),
        (Literal[1, 2], int),
        (bool, bool),
        (Annotated[int, Field(ge=0, le=99)], int),
        (Annotated[list[Colour], Field(max_length=3)], list),
        (tuple[bool, Colour], tuple),
        (Tree, Tree),
        (Pet, Pet),
    ],
    ids=str,
)
def test_every_form_is_enforced(llm: LLM, wanted: Any, kind: type) -> None:
    """Also where the model, hot, would rather write something else."""
    for seed in range(3):
        try:
            answer = llm.chat("Hello!", response_format=wanted, temperature=1.5, seed=seed, max_tokens=300)
        except MlxcelTruncatedError:
            continue  # it may pad with blanks until it is cut off, and says so
        assert isinstance(answer.parsed, kind)


def test_truncated(llm: LLM) -> None:
    for call in (llm.chat, lambda *a, **k: llm.chat_stream(*a, **k).result()):
        with pytest.raises(MlxcelTruncatedError) as caught:
            call(ASK, response_format=Person, temperature=0, max_tokens=6)
        error = caught.value
        assert error.reason == "length"
        assert error.text.startswith('{"name": "Ann')
        assert isinstance(error.partial, Person)
        assert error.partial.name.startswith("Ann")
        assert error.result is not None
        assert error.result.usage is not None
        assert error.result.usage.completion_tokens == 6


def test_each_of_several_choices_is_parsed(llm: LLM) -> None:
    answer = llm.chat(ASK, response_format=Person, n=3, temperature=0.5, seed=1, max_tokens=60)
    assert len(answer.choices) == 3
    assert all(isinstance(choice.parsed, Person) for choice in answer.choices)


def test_partial_objects_of_a_real_stream(llm: LLM) -> None:
    with llm.chat_stream(ASK, response_format=list[Person], temperature=0, max_tokens=16) as stream:
        seen: list[list[Person]] = []
        with pytest.raises(MlxcelTruncatedError) as caught:
            seen.extend(stream.partials())
    assert seen
    assert all(isinstance(person, Person) for people in seen for person in people)
    assert caught.value.partial == seen[-1]
    with llm.stream(ASK, response_format=Person, temperature=0, max_tokens=60) as whole:
        *_, last = whole.partials()
    assert last == Person(name="Anna", age=31) == whole.result().parsed


async def test_the_same_for_async(llm: LLM) -> None:
    assert llm.server is not None
    options: dict[str, Any] = {"response_format": Person, "temperature": 0, "max_tokens": 60}
    async with AsyncLLM(socket=llm.server.socket_path, api_key=llm.server.api_key) as other:
        assert (await other.chat(ASK, **options)).parsed == Person(name="Anna", age=31)
        async with other.chat_stream(ASK, **options) as stream:
            seen = [person async for person in stream.partials()]
        assert seen[-1] == Person(name="Anna", age=31)
        assert len(seen) > 2
        with pytest.raises(MlxcelTruncatedError):
            await other.chat(ASK, **{**options, "max_tokens": 3})


def test_thoughts_and_a_format(llm: LLM) -> None:
    answer = llm.chat(ASK, response_format=Person, temperature=0, max_tokens=300, **THINK)
    assert answer.reasoning
    assert isinstance(answer.parsed, Person)


def test_what_the_server_cannot_enforce_is_its_400(llm: LLM) -> None:
    with pytest.raises(openai.BadRequestError, match="not"):
        llm.chat(ASK, response_format={"type": "object", "not": {"required": ["a"]}})


def test_counts_and_times(llm: LLM) -> None:
    prompt = "Say something about the number seventeen, please. " * 4
    llm.chat(prompt, temperature=0, max_tokens=4)
    for answer in (
        llm.chat(prompt, temperature=0, max_tokens=4),
        llm.chat_stream(prompt, temperature=0, max_tokens=4).result(),
    ):
        assert answer.usage is not None
        assert answer.usage.cached_tokens is not None
        assert 0 < answer.usage.cached_tokens < answer.usage.prompt_tokens
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
        assert answer.timings.ttft is not None
        assert answer.timings.ttft > 0
        assert answer.timings.prefill_tokens_per_second is not None
        assert answer.timings.decode_tokens_per_second is not None


REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("What is 17 + 25?", {"max_tokens": 60}),
    ("What is 17 + 25?", {"max_tokens": 200, **THINK}),
    ("Use the tool to add 17 and 25.", {"max_tokens": 200, "tools": [ADD]}),
    (
        "Use the tool to add 17 and 25.",
        {"max_tokens": 300, "tools": [ADD], "tool_choice": "required", **THINK},
    ),
    ("Tell me a story.", {"max_tokens": 40, "n": 3, "temperature": 1.0, "seed": 5}),
]


def assembled(events: list[Any]) -> dict[int, dict[str, Any]]:
    """What the events of a stream say, choice by choice."""
    choices: dict[int, dict[str, Any]] = defaultdict(
        lambda: {"text": "", "reasoning": "", "calls": {}, "finish": None}
    )
    for event in events:
        match event:
            case TextDelta(text, choice):
                choices[choice]["text"] += text
            case ReasoningDelta(text, choice):
                choices[choice]["reasoning"] += text
            case ToolCallDelta(index, _, name, arguments, choice):
                call = choices[choice]["calls"].setdefault(index, ["", ""])
                call[0] += name
                call[1] += arguments
            case Finish(reason, choice):
                choices[choice]["finish"] = reason
    return dict(sorted(choices.items()))


def facts(result: Result) -> dict[int, dict[str, Any]]:
    return {
        index: {
            "text": str(choice),
            "reasoning": choice.reasoning or "",
            "calls": {at: [call.name, call.raw] for at, call in enumerate(choice.tool_calls)},
            "finish": choice.finish_reason,
        }
        for index, choice in enumerate(result.choices)
    }


@pytest.mark.parametrize(("text", "options"), REQUESTS)
async def test_events_assemble_to_exactly_the_whole_answer(
    llm: LLM, text: str, options: dict[str, Any]
) -> None:
    options = {"temperature": 0, **options}
    whole = facts(llm.chat(text, **options))
    with llm.chat_stream(text, events=True, **options) as stream:
        events = list(stream)
    assert assembled(events) == facts(stream.result()) == whole
    assert events[-1] == stream.result().usage
    assert isinstance(events[-1], Usage)
    assert llm.server is not None
    async with (
        AsyncLLM(socket=llm.server.socket_path, api_key=llm.server.api_key) as other,
        other.chat_stream(text, events=True, **options) as awaited,
    ):
        assert assembled([event async for event in awaited]) == whole


def test_completions_have_events_too(llm: LLM) -> None:
    with llm.stream("Once", events=True, max_tokens=8, temperature=0) as stream:
        events = list(stream)
    assert assembled(events) == facts(stream.result())
