"""Streams of text and of events against servers that say what a test wants, blocking and async."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from mlxcel import (
    LLM,
    AsyncLLM,
    Event,
    Finish,
    MlxcelFormatError,
    MlxcelRefusalError,
    MlxcelResponseError,
    MlxcelStateError,
    MlxcelTruncatedError,
    ReasoningDelta,
    RefusalDelta,
    Result,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from mlxcel.testing import Exchange, FixtureServer, Reply

if TYPE_CHECKING:
    from collections.abc import Callable

MODES = pytest.mark.parametrize("mode", ["sync", "async"])


class Person(BaseModel):
    name: str
    age: int


def script(*deltas: dict[str, Any], finish: str = "stop", usage: bool = True) -> Callable[[Exchange], None]:
    """A server that streams these deltas, also to another choice where one says `choice`."""

    def play(exchange: Exchange) -> None:
        assert exchange.body["stream"]
        exchange.begin()
        choices = {delta.get("choice", 0) for delta in deltas}
        for delta in deltas:
            choice = {"index": delta.get("choice", 0), "finish_reason": None, "delta": delta}
            exchange.chunk(f"data: {json.dumps({'choices': [choice]})}\n\n".encode())
        for index in sorted(choices):
            choice = {"index": index, "finish_reason": finish, "delta": {}}
            exchange.chunk(f"data: {json.dumps({'choices': [choice]})}\n\n".encode())
        if usage:
            exchange.chunk(f"data: {json.dumps({'choices': [], 'usage': Reply().usage})}\n\n".encode())
        exchange.chunk(b"data: [DONE]\n\n")
        exchange.chunk(b"")

    return play


def collect(mode: str, url: str, **options: Any) -> tuple[list[Any], Result]:
    """All items of a stream, and its result."""
    if mode == "sync":
        with LLM(base_url=url) as llm, llm.chat_stream("p", **options) as stream:
            return list(stream), stream.result()

    async def use() -> tuple[list[Any], Result]:
        async with AsyncLLM(base_url=url) as llm, llm.chat_stream("p", **options) as stream:
            return [item async for item in stream], await stream.result()

    return asyncio.run(use())


def partials(mode: str, url: str, **options: Any) -> list[Any]:
    if mode == "sync":
        with LLM(base_url=url) as llm, llm.chat_stream("p", **options) as stream:
            return list(stream.partials())

    async def use() -> list[Any]:
        async with AsyncLLM(base_url=url) as llm, llm.chat_stream("p", **options) as stream:
            return [item async for item in stream.partials()]

    return asyncio.run(use())


def call(index: int, **function: Any) -> dict[str, Any]:
    head = {"id": function.pop("id")} if "id" in function else {}
    return {"tool_calls": [{"index": index, "function": function, **head}]}


@MODES
def test_events_are_the_whole_answer_in_pieces(mode: str) -> None:
    play = script(
        {"role": "assistant"},
        {"reasoning_content": "I "},
        {"reasoning_content": "see"},
        {"content": "On"},
        {"content": "e"},
        {"content": "two", "choice": 1},
        call(0, id="a", name="add", arguments=""),
        call(0, arguments='{"x": '),
        call(0, arguments="1}"),
        call(1, id="b", name="now", arguments={"tz": "UTC"}),
        finish="tool_calls",
    )
    with FixtureServer(play) as server:
        events, result = collect(mode, server.base_url, events=True)
        pieces, other = collect(mode, server.base_url)
    assert events == [
        ReasoningDelta("I "),
        ReasoningDelta("see"),
        TextDelta("On"),
        TextDelta("e"),
        TextDelta("two", 1),
        ToolCallDelta(0, "a", "add", ""),
        ToolCallDelta(0, "", "", '{"x": '),
        ToolCallDelta(0, "", "", "1}"),
        ToolCallDelta(1, "b", "now", '{"tz": "UTC"}'),
        Finish("tool_calls"),
        Finish("tool_calls", 1),
        Usage(1, 2, 3),
    ]
    assert pieces == ["On", "e"]
    for whole in (result, other):
        assert whole.choices == ["One", "two"]
        assert whole.reasoning == "I see"
        assert whole.tool_calls == [ToolCall("a", "add", '{"x": 1}'), ToolCall("b", "now", '{"tz": "UTC"}')]
        assert whole.usage == Usage(1, 2, 3)


@MODES
def test_usage_that_grows_in_each_chunk_is_told_once(mode: str) -> None:
    def play(exchange: Exchange) -> None:
        exchange.begin()
        for count, text in enumerate("abc", 1):
            choice = {
                "index": 0,
                "finish_reason": "stop" if text == "c" else None,
                "delta": {"content": text},
            }
            chunk = {"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": count}}
            exchange.chunk(f"data: {json.dumps(chunk)}\n\n".encode())
        exchange.chunk(b"data: [DONE]\n\n")
        exchange.chunk(b"")

    with FixtureServer(play) as server:
        events, result = collect(mode, server.base_url, events=True)
    assert [event for event in events if isinstance(event, Usage)] == [Usage(1, 3, 4)]
    assert result.usage == Usage(1, 3, 4)


@MODES
def test_partial_objects_grow(mode: str) -> None:
    text = '{"name": "Anna", "age": 31}'
    with FixtureServer(script(*({"content": letter} for letter in text))) as server:
        seen = partials(mode, server.base_url, response_format=Person)
        raw = partials(mode, server.base_url, response_format={"type": "json_object"})
    assert all(isinstance(person, Person) for person in seen)
    assert [(person.name, person.age) for person in seen] == [
        (None, None),
        ("", None),
        ("A", None),
        ("An", None),
        ("Ann", None),
        ("Anna", None),
        ("Anna", 31),
    ]
    assert seen[-1] == Person(name="Anna", age=31)
    assert raw[-2:] == [{"name": "Anna"}, {"name": "Anna", "age": 31}]


@MODES
@pytest.mark.parametrize(
    ("play", "error"),
    [
        (script({"content": '{"name": "Bo'}, finish="length"), MlxcelTruncatedError),
        (script({"content": "Here you are"}), MlxcelFormatError),
        (script({"refusal": "I will "}, {"refusal": "not"}), MlxcelRefusalError),
    ],
)
def test_a_stream_that_is_not_what_was_asked_for_says_so_at_its_end(
    mode: str, play: Any, error: type[MlxcelFormatError]
) -> None:
    with FixtureServer(play) as server:
        for read in (collect, partials):
            with pytest.raises(error) as caught:
                read(mode, server.base_url, response_format=Person)
            assert type(caught.value) is error
            assert caught.value.text in ('{"name": "Bo', "Here you are", "I will not")
            assert isinstance(caught.value.result, Result)
        events: list[Event] = []
        with LLM(base_url=server.base_url) as llm:
            stream = llm.chat_stream("p", response_format=Person, events=True)
            with pytest.raises(error):
                events.extend(stream)
            assert list(stream) == [], "told once"
            with pytest.raises(error):
                stream.result()
    assert isinstance(events[-1], Usage), "all events come before the error"
    assert isinstance(events[0], TextDelta | RefusalDelta)


def test_a_whole_answer_is_held_to_its_format_too() -> None:
    def ignore(exchange: Exchange) -> None:
        exchange.whole("Sure, here is the person: Anna.")

    with FixtureServer(ignore) as server, LLM(base_url=server.base_url) as llm:
        for ask in (llm.chat, llm.generate):
            with pytest.raises(MlxcelFormatError, match="ignored") as caught:
                ask("p", response_format=Person)
            assert caught.value.result == "Sure, here is the person: Anna."
            assert caught.value.result is not None
            assert caught.value.result.usage == Usage(1, 2, 3)


def test_result_reads_what_is_left() -> None:
    with (
        FixtureServer(script({"content": "a"}, {"content": "b"})) as server,
        LLM(base_url=server.base_url) as llm,
    ):
        stream = llm.chat_stream("p", events=True)
        assert next(stream) == TextDelta("a")
        assert stream.result() == "ab"
        assert list(stream) == []
        assert stream.text == "ab"
        stream.close()
        assert stream.result() == "ab"


def test_a_stream_that_is_left_has_no_result() -> None:
    with (
        FixtureServer(script({"content": "a"}, {"content": "b"})) as server,
        LLM(base_url=server.base_url) as llm,
    ):
        with llm.chat_stream("p", events=True) as stream:
            next(stream)
        assert list(stream) == []
        with pytest.raises(MlxcelStateError, match="closed"):
            stream.result()
        assert stream.text == "a"


async def test_the_same_for_async() -> None:
    with FixtureServer(script({"content": "a"}, {"content": "b"})) as server:
        async with AsyncLLM(base_url=server.base_url) as llm:
            stream = llm.chat_stream("p", events=True)
            assert await anext(stream) == TextDelta("a")
            assert await stream.result() == "ab"
            assert [event async for event in stream] == []
            async with llm.chat_stream("p") as left:
                await anext(left)
            with pytest.raises(MlxcelStateError, match="closed"):
                await left.result()


@MODES
def test_a_stream_that_breaks_off_keeps_what_came(mode: str) -> None:
    def play(exchange: Exchange) -> None:
        exchange.begin()
        exchange.piece("half")
        exchange.chunk(b"")

    with FixtureServer(play) as server, pytest.raises(MlxcelResponseError, match="ended before") as caught:
        collect(mode, server.base_url, events=True)
    assert caught.value.text == "half"


async def test_the_model_of_an_async_client_is_known_once_it_is_ready() -> None:
    with FixtureServer(script()) as server:
        async with AsyncLLM(base_url=server.base_url) as llm:
            with pytest.raises(MlxcelStateError, match=r"await llm\.ready\(\)"):
                _ = llm.model
            await llm.ready()
            assert llm.model == "m"
