"""The Messages API with the official `anthropic` SDK, which checks answers strictly, and the real binary.

The SDK lives in an environment of its own, which `make test-clients` builds and runs this in.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anthropic
import httpx2
import pytest

from mlxcel import ManagedServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODEL = "mlxcel-tiny"
PAINT: dict[str, Any] = {
    "name": "paint",
    "description": "Paint the wall",
    "input_schema": {
        "type": "object",
        "properties": {"colour": {"enum": ["red", "blue"]}},
        "required": ["colour"],
        "additionalProperties": False,
    },
}
ASK: dict[str, Any] = {
    "model": MODEL,
    "max_tokens": 64,
    "extra_body": {"temperature": 0},  # the SDK has no word for it any more
    "messages": [{"role": "user", "content": "Hello!"}],
}
# To think needs room.
SUM: dict[str, Any] = ASK | {
    "max_tokens": 300,
    "messages": [{"role": "user", "content": "What is 17 + 25?"}],
}


@pytest.fixture(scope="module")
def server(real_binary: Path) -> Iterator[ManagedServer]:
    with ManagedServer(MODEL, binary=real_binary) as server:
        yield server


@pytest.fixture(scope="module")
def http(server: ManagedServer) -> Iterator[httpx2.Client]:
    transport = httpx2.HTTPTransport(uds=server.socket_path)
    with httpx2.Client(transport=transport, trust_env=False) as http:
        yield http


def connect(http: httpx2.Client, **credentials: str | None) -> Any:
    # Validation is an argument of the base class only.
    return anthropic.Anthropic(
        base_url="http://localhost",
        http_client=http,
        max_retries=0,
        _strict_response_validation=True,
        **credentials,
    )


@pytest.fixture(scope="module")
def sdk(server: ManagedServer, http: httpx2.Client) -> Any:
    return connect(http, api_key=server.api_key)


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


def test_a_bearer_token_opens_it_too(server: ManagedServer, http: httpx2.Client) -> None:
    message = connect(http, auth_token=server.api_key).messages.create(**ASK)
    assert message.content


@pytest.mark.parametrize(
    "ask",
    [
        ASK,
        SUM | {"thinking": {"type": "enabled", "budget_tokens": 200}},
        ASK | {"tools": [PAINT], "tool_choice": {"type": "any", "disable_parallel_tool_use": True}},
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


def test_a_tool_is_called_and_its_result_sent_back(sdk: Any) -> None:
    ask = ASK | {"tools": [PAINT], "max_tokens": 200}
    named = ask | {"tool_choice": {"type": "tool", "name": "paint"}}
    with sdk.messages.stream(**named) as stream:
        pieces = [event.partial_json for event in stream if event.type == "input_json"]
        first = stream.get_final_message()
    assert first.stop_reason == "tool_use"
    (call,) = first.content
    assert (call.type, call.name) == ("tool_use", "paint")
    assert call.input == json.loads("".join(pieces))
    assert call.input["colour"] in ("red", "blue")
    result = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "done"}]}
    messages = [
        *ASK["messages"],
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": [result]},
    ]
    second = sdk.messages.create(**ask | {"messages": messages, "tool_choice": {"type": "none"}})
    assert second.stop_reason in ("end_turn", "max_tokens")
    stray = [*ASK["messages"], {"role": "user", "content": [result | {"tool_use_id": "other"}]}]
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
    schema = PAINT["input_schema"]
    format_ = {"type": "json_schema", "schema": schema}
    message = sdk.messages.create(
        **ASK | {"extra_body": {"temperature": 1}}, output_config={"format": format_}
    )
    assert json.loads(message.content[0].text)["colour"] in ("red", "blue")


def test_errors_are_the_sdks_own(sdk: Any, http: httpx2.Client) -> None:
    image = {"type": "image", "source": {"type": "url", "url": "http://localhost/a.png"}}
    with pytest.raises(anthropic.BadRequestError, match=r"content\[0\]") as refused:
        sdk.messages.create(**ASK | {"messages": [{"role": "user", "content": [image]}]})
    assert refused.value.body["error"]["type"] == "invalid_request_error"
    assert refused.value.request_id == refused.value.body["request_id"]
    with pytest.raises(anthropic.BadRequestError, match="web_search_20250305"):
        sdk.messages.create(**ASK, tools=[{"type": "web_search_20250305", "name": "web_search"}])
    with pytest.raises(anthropic.AuthenticationError) as unknown:
        connect(http, api_key="wrong").messages.create(**ASK)
    assert unknown.value.body["error"]["type"] == "authentication_error"
    with pytest.raises(anthropic.NotFoundError):
        sdk.messages.batches.list()
