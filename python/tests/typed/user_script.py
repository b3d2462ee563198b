"""What a user writes, all in one: checked by mypy as strictly as it goes, and run with the built-in model."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, assert_type

from pydantic import BaseModel
from typing_extensions import TypedDict

import mlxcel
from mlxcel import (
    LLM,
    AsyncChat,
    AsyncLLM,
    Chat,
    Event,
    Finish,
    MlxcelBatchError,
    MlxcelFormatError,
    MlxcelToolArgumentsError,
    MlxcelTruncatedError,
    ReasoningDelta,
    RefusalDelta,
    Result,
    ResultIterator,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolEvent,
    ToolOutcome,
    ToolRun,
    Usage,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

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


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def functions(llm: LLM) -> None:
    seen: list[ToolEvent] = []
    run = llm.run_tools(
        "Use the tool to add 17 and 25.",
        tools=[add],
        approve=lambda call: call.arguments["a"] == 17,
        on_event=seen.append,
        temperature=0,
        max_tokens=200,
    )
    assert_type(run, ToolRun[Any])
    assert "42" in run
    assert [event.value for event in seen if isinstance(event, ToolOutcome)] == [42]
    assert_type(run.messages, list[dict[str, Any]])
    assert_type(run.steps[0].outcomes, list[ToolOutcome])


def conversations(llm: LLM) -> None:
    chat = Chat(llm, system="Be brief.", temperature=0, max_tokens=60)
    assert_type(chat.send("What is 17 + 25?"), Result[Any])
    with chat.branch().stream("What is 3 + 4?") as stream:
        assert_type(list(stream), list[str])
        assert_type(stream.result(), Result[Any])


def routes(llm: LLM) -> None:
    answer = llm.responses("What is 17 + 25?", temperature=0)
    assert "42" in answer.output_text
    for event in llm.responses_stream("What is 17 + 25?", temperature=0):
        if event.type == "response.output_text.delta":
            assert_type(event.delta, str)
    assert_type(llm.apply_template("Hello"), str)
    assert_type(llm.slots(), list[dict[str, Any]])


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


def many(llm: LLM) -> None:
    asked = ["What is 1 + 1?", "What is 2 + 2?"]
    assert_type(llm.chat(asked, max_tokens=8), list[Result[Any]])
    assert_type(llm.generate([[1, 2], [3]], max_tokens=2), list[Result[Any]])
    assert_type(llm.generate([1, 2], max_tokens=2), Result[Any])
    one: list[dict[str, Any]] = [{"role": "user", "content": "What is 1 + 1?"}]
    assert_type(llm.chat(one, max_tokens=8), Result[Any])
    assert_type(llm.chat([one, "What is 2 + 2?"], max_tokens=8), list[Result[Any]])
    people = llm.chat([ASK, ASK], response_format=Person, temperature=0, max_tokens=60)
    assert_type([person.parsed for person in people], list[Person])
    for outcome in llm.chat(asked, sampling=[{"temperature": -1}, {}], max_tokens=2, return_exceptions=True):
        assert_type(outcome, Result[Any] | Exception)
    with llm.chat((f"What is {n} + {n}?" for n in range(3)), concurrency=2, max_tokens=8) as lazy:
        assert_type(lazy, ResultIterator[Result[Any]])
        for answer in lazy:
            assert_type(answer, Result[Any])
    try:
        llm.chat(asked, sampling=[{"temperature": -1}, {}], max_tokens=2)
    except MlxcelBatchError as error:
        assert_type(error.index, int)
        assert_type(error.results, list[Result[Any] | Exception | None])
    else:
        raise SystemExit("a negative temperature was accepted")


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


async def questions() -> AsyncIterator[str]:
    for number in range(3):
        yield f"What is {number} + {number}?"


async def everything_async(llm: AsyncLLM) -> None:
    await llm.ready()
    assert_type(llm.model, str)
    answer = await llm.chat(ASK, response_format=Person, temperature=0, max_tokens=60)
    assert_type(answer.parsed, Person)
    people = await llm.chat([ASK, ASK], response_format=Person, temperature=0, max_tokens=60)
    assert_type(people, list[Result[Person]])
    async for answer in await llm.chat(iter([ASK]), response_format=Person, temperature=0, max_tokens=60):
        assert_type(answer.parsed, Person)
    async for outcome in await llm.chat(questions(), max_tokens=8, return_exceptions=True):
        assert_type(outcome, Result[Any] | Exception)
    async with llm.chat_stream(ASK, temperature=0, max_tokens=60) as stream:
        assert "".join([piece async for piece in stream]) == await stream.result()
    async with llm.stream(ASK, events=True, temperature=0, max_tokens=60) as events:
        assert all([told(event) async for event in events])
    async with llm.chat_stream(ASK, response_format=Person, temperature=0, max_tokens=60) as growing:
        async for person in growing.partials():
            assert_type(person, Person)


async def conversations_async(llm: AsyncLLM) -> None:
    run = await llm.run_tools("Use the tool to add 17 and 25.", tools=[add], temperature=0, max_tokens=200)
    assert_type(run, ToolRun[Any])
    chat = AsyncChat(llm, temperature=0, max_tokens=60)
    assert_type(await chat.send("What is 17 + 25?"), Result[Any])
    assert "7" in "".join([piece async for piece in chat.stream("What is 3 + 4?")])


async def asynchronous() -> None:
    async with AsyncLLM("mlxcel-tiny") as llm:
        await everything_async(llm)
        await conversations_async(llm)


def main() -> None:
    with LLM("mlxcel-tiny") as llm:
        results(llm)
        tools(llm)
        formats(llm)
        many(llm)
        functions(llm)
        conversations(llm)
        routes(llm)
        streams(llm)
    asyncio.run(asynchronous())
    sys.stdout.write(f"all of mlxcel {mlxcel.__version__} used\n")


main()
