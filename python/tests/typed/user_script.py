"""What a user writes, all in one: checked by mypy as strictly as it goes, and run with the built-in model."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from enum import Enum
from typing import Any, Literal, assert_type

from pydantic import BaseModel
from typing_extensions import TypedDict

import mlxcel
from mlxcel import (
    LLM,
    AsyncLLM,
    Event,
    Finish,
    MlxcelFormatError,
    MlxcelToolArgumentsError,
    MlxcelTruncatedError,
    ReasoningDelta,
    RefusalDelta,
    Result,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    Usage,
)

ASK = "Extract name and age as JSON: Anna is 31 years old."
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
    age: int


@dataclasses.dataclass
class Named:
    name: str


class Aged(TypedDict):
    age: int


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


def results(llm: LLM) -> None:
    answer = llm.chat("What is 17 + 25?", temperature=0, max_tokens=60)
    assert_type(answer, Result[Any])
    shouted: str = answer.upper()
    assert "42" in shouted
    if answer.usage is not None:
        assert_type(answer.usage, Usage)
        assert_type(answer.usage.cached_tokens, int | None)
    assert_type(answer.timings.ttft, float | None)
    assert_type(answer.finish_reason, str | None)
    assert_type(answer.reasoning, str | None)
    assert_type(answer.choices, list[Result[Any]])
    plain: Result = answer
    assert plain.as_message()["role"] == "assistant"


def tools(llm: LLM) -> None:
    answer = llm.chat("Use the tool to add 17 and 25.", tools=[ADD], temperature=0, max_tokens=200)
    for call in answer.tool_calls:
        assert_type(call, ToolCall)
        try:
            arguments = call.arguments
        except MlxcelToolArgumentsError as error:
            raise SystemExit(error.raw) from error
        assert_type(arguments, dict[str, Any])
        assert arguments["a"] + arguments["b"] == 42


def formats(llm: LLM) -> None:
    assert_type(llm.chat(ASK, response_format=Person, temperature=0, max_tokens=60).parsed, Person)
    assert_type(llm.generate(ASK, response_format=Person, temperature=0, max_tokens=60).parsed, Person)
    assert_type(llm.chat(ASK, response_format=Named, temperature=0, max_tokens=60).parsed, Named)
    assert_type(llm.chat(ASK, response_format=Aged, temperature=0, max_tokens=60).parsed, Aged)
    assert_type(llm.chat("Red?", response_format=Colour, temperature=0, max_tokens=60).parsed, Colour)
    assert_type(llm.chat("How many?", response_format=int, temperature=0, max_tokens=60).parsed, int)
    yes = llm.chat("Yes or no?", response_format=Literal["yes", "no"], temperature=0, max_tokens=60)
    assert yes.parsed in ("yes", "no")
    several = llm.chat(ASK, response_format=Person, n=2, temperature=0, max_tokens=60)
    assert_type([choice.parsed for choice in several.choices], list[Person])
    try:
        llm.chat(ASK, response_format=Person, max_tokens=4)
    except MlxcelTruncatedError as error:
        assert_type(error.text, str)
        assert_type(error.partial, object)
    except MlxcelFormatError as error:
        raise SystemExit(str(error)) from error


def told(event: Event) -> str:
    match event:
        case TextDelta(text=text) | ReasoningDelta(text=text) | RefusalDelta(text=text):
            return text
        case ToolCallDelta(name=name, arguments=arguments):
            return name + arguments
        case Finish(reason=reason):
            return reason
        case Usage(total_tokens=total):
            return str(total)


def streams(llm: LLM) -> None:
    with llm.chat_stream(ASK, temperature=0, max_tokens=60) as stream:
        pieces = list(stream)
        assert_type(pieces, list[str])
        assert "".join(pieces) == stream.result()
    with llm.chat_stream(ASK, events=True, response_format=Person, temperature=0, max_tokens=60) as events:
        assert all(told(event) for event in events)
        assert_type(events.result(), Result[Person])
    with llm.stream(ASK, response_format=Person, temperature=0, max_tokens=60) as growing:
        for person in growing.partials():
            assert_type(person, Person)
        assert person == growing.result().parsed


async def everything_async(llm: AsyncLLM) -> None:
    await llm.ready()
    assert_type(llm.model, str)
    answer = await llm.chat(ASK, response_format=Person, temperature=0, max_tokens=60)
    assert_type(answer.parsed, Person)
    async with llm.chat_stream(ASK, temperature=0, max_tokens=60) as stream:
        assert "".join([piece async for piece in stream]) == await stream.result()
    async with llm.stream(ASK, events=True, temperature=0, max_tokens=60) as events:
        assert all([told(event) async for event in events])
    async with llm.chat_stream(ASK, response_format=Person, temperature=0, max_tokens=60) as growing:
        async for person in growing.partials():
            assert_type(person, Person)


async def asynchronous() -> None:
    async with AsyncLLM("mlxcel-tiny") as llm:
        await everything_async(llm)


def main() -> None:
    with LLM("mlxcel-tiny") as llm:
        results(llm)
        tools(llm)
        formats(llm)
        streams(llm)
    asyncio.run(asynchronous())
    sys.stdout.write(f"all of mlxcel {mlxcel.__version__} used\n")


main()
