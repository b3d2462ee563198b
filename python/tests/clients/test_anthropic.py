"""Anthropic's own SDK, which holds every answer to its types: messages, their streams and their errors."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anthropic
import pytest
from served import ANNA, EXTRACT, GREET, MODEL, USE_TOOL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from served import AddTool, Server

ADD: dict[str, Any] = {
    "name": "add",
    "description": "Add two numbers",
    "input_schema": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
        "additionalProperties": False,
    },
}
ASK: dict[str, Any] = {
    "model": MODEL,
    "max_tokens": 64,
    "extra_body": {"temperature": 0},  # the SDK has no word for it any more
    "messages": [{"role": "user", "content": GREET}],
}
# To think needs room.
SUM: dict[str, Any] = ASK | {
    "max_tokens": 300,
    "messages": [{"role": "user", "content": "What is 17 + 25?"}],
}


def connect(server: Server, **credentials: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(
        base_url=server.origin, max_retries=0, _strict_response_validation=True, **credentials
    )


@pytest.fixture(scope="module")
def sdk(server: Server) -> Iterator[Any]:
    with connect(server, api_key=server.key) as sdk:
        yield sdk


def same(message: Any) -> Any:
    """What two answers to the same question have in common."""
    # The SDK adds nulls of its own to what it accumulates.
    told = message.to_dict(exclude_none=True)
    for name in ("id", "usage"):
        del told[name]
    for block in told["content"]:
        block.pop("id", None)
    return told


def test_text_comes_back(sdk: Any) -> None:
    message = sdk.messages.create(**ASK, system=[{"type": "text", "text": "Be brief."}])
    assert (message.type, message.role, message.model) == ("message", "assistant", MODEL)
    (block,) = message.content
    assert block.text
    assert message.stop_reason == "end_turn"
    assert message._request_id
    usage = message.usage
    count = sdk.messages.count_tokens(model=MODEL, messages=ASK["messages"], system="Be brief.")
    assert usage.input_tokens + usage.cache_read_input_tokens == count.input_tokens
    assert usage.cache_creation_input_tokens == 0
    assert usage.output_tokens > 0
    again = sdk.messages.create(**ASK, system="Be brief.")
    assert again.usage.cache_read_input_tokens > 0
    assert same(again) == same(message)


def test_a_bearer_token_opens_it_too(server: Server) -> None:
    with connect(server, auth_token=server.key) as sdk:
        assert sdk.messages.create(**ASK).content


@pytest.mark.parametrize(
    "ask",
    [
        ASK,
        SUM | {"thinking": {"type": "enabled", "budget_tokens": 200}},
        ASK | {"tools": [ADD], "tool_choice": {"type": "any", "disable_parallel_tool_use": True}},
    ],
    ids=["text", "thought", "call"],
)
def test_what_the_sdk_accumulates_is_the_whole_message(sdk: Any, ask: dict[str, Any]) -> None:
    whole = sdk.messages.create(**ask)
    with sdk.messages.stream(**ask) as stream:
        events = [event.type for event in stream]
        final = stream.get_final_message()
    assert same(final) == same(whole)
    assert events.count("content_block_start") == len(whole.content)
    assert final.usage.output_tokens == whole.usage.output_tokens


def test_text_streams_in_pieces(sdk: Any) -> None:
    with sdk.messages.stream(**ASK) as stream:
        pieces = list(stream.text_stream)
    assert len(pieces) > 1
    assert "".join(pieces) == sdk.messages.create(**ASK).content[0].text


def test_events_come_in_their_order(sdk: Any) -> None:
    events = [event.type for event in sdk.messages.create(**ASK, stream=True)]
    assert events[:2] == ["message_start", "content_block_start"]
    assert events[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(events[2:-3]) == {"content_block_delta"}


def test_thoughts_come_first_and_can_be_bounded(sdk: Any) -> None:
    free = sdk.messages.create(**SUM, thinking={"type": "enabled", "budget_tokens": 250})
    thought, text = free.content
    assert (thought.type, text.type) == ("thinking", "text")
    assert thought.thinking
    assert thought.signature
    spent = free.usage.output_tokens_details.thinking_tokens
    assert 2 < spent < free.usage.output_tokens
    bounded = sdk.messages.create(**SUM, thinking={"type": "enabled", "budget_tokens": 2})
    assert bounded.usage.output_tokens_details.thinking_tokens < spent
    plain = sdk.messages.create(**SUM, thinking={"type": "disabled"})
    assert [block.type for block in plain.content] == ["text"]
    # A thought goes back with the message that it is part of.
    more = [*SUM["messages"], {"role": "assistant", "content": free.content}, *SUM["messages"]]
    assert sdk.messages.create(**SUM | {"messages": more}).content


def test_a_tool_is_called_and_its_result_sent_back(sdk: Any, add: AddTool) -> None:
    question = [{"role": "user", "content": USE_TOOL}]
    ask = ASK | {"tools": [ADD], "max_tokens": 200, "messages": question}
    with sdk.messages.stream(**ask, tool_choice={"type": "tool", "name": "add"}) as stream:
        pieces = [event.partial_json for event in stream if event.type == "input_json"]
        first = stream.get_final_message()
    assert first.stop_reason == "tool_use"
    call = first.content[-1]
    assert (call.type, call.name) == ("tool_use", "add")
    assert call.input == json.loads("".join(pieces))
    result = {
        "type": "tool_result",
        "tool_use_id": call.id,
        "content": [{"type": "text", "text": add(**call.input)}],
    }
    assert add.calls == [(17, 25)]
    answered = [
        *question,
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": [result]},
    ]
    second = sdk.messages.create(**ask | {"messages": answered})
    assert second.stop_reason == "end_turn"
    assert "42" in second.content[-1].text
    stray = [*question, {"role": "user", "content": [result | {"tool_use_id": "other"}]}]
    with pytest.raises(anthropic.BadRequestError, match="tool_use_id"):
        sdk.messages.create(**ask | {"messages": stray})


def test_a_stop_sequence_is_named(sdk: Any) -> None:
    text = sdk.messages.create(**ASK).content[0].text
    stop = text[3:6]
    message = sdk.messages.create(**ASK, stop_sequences=[stop])
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", stop)
    assert message.content[0].text == text[: text.index(stop)]
    assert sdk.messages.create(**ASK | {"max_tokens": 1}).stop_reason == "max_tokens"


def test_structured_output(sdk: Any) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    ask = ASK | {"messages": [{"role": "user", "content": EXTRACT}]}
    message = sdk.messages.create(**ask, output_config={"format": {"type": "json_schema", "schema": schema}})
    assert json.loads(message.content[0].text) == ANNA


def test_errors_are_the_sdks_own(sdk: Any, server: Server) -> None:
    image = {"type": "image", "source": {"type": "url", "url": "http://localhost/a.png"}}
    with pytest.raises(anthropic.BadRequestError, match=r"content\[0\]") as refused:
        sdk.messages.create(**ASK | {"messages": [{"role": "user", "content": [image]}]})
    assert refused.value.body["error"]["type"] == "invalid_request_error"
    assert refused.value.request_id == refused.value.body["request_id"]
    with pytest.raises(anthropic.BadRequestError, match="web_search_20250305"):
        sdk.messages.create(**ASK, tools=[{"type": "web_search_20250305", "name": "web_search"}])
    with (
        connect(server, api_key="wrong") as stranger,
        pytest.raises(anthropic.AuthenticationError) as unknown,
    ):
        stranger.messages.create(**ASK)
    assert unknown.value.body["error"]["type"] == "authentication_error"
    with pytest.raises(anthropic.NotFoundError):
        sdk.messages.batches.list()
