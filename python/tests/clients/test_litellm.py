"""litellm, which takes any server that speaks OpenAI's API by its address."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel
from served import ANNA, EXTRACT, GREET, MODEL, USE_TOOL

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else importing it fetches a list of prices
import litellm

if TYPE_CHECKING:
    from served import AddTool, Server

TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add two numbers",
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


@pytest.fixture
def to(server: Server) -> dict[str, Any]:
    return {
        "model": f"openai/{MODEL}",
        "api_base": server.url,
        "api_key": server.key,
        "temperature": 0,
        "max_retries": 0,
    }


def said(content: str) -> list[Any]:
    return [{"role": "user", "content": content}]


def test_chat_streams_what_it_answers(to: dict[str, Any]) -> None:
    whole: Any = litellm.completion(messages=said(GREET), **to)
    assert whole.choices[0].message.content
    chunks = list(
        litellm.completion(messages=said(GREET), stream=True, stream_options={"include_usage": True}, **to)
    )
    streamed: Any = litellm.stream_chunk_builder(chunks)
    assert streamed.choices[0].message.content == whole.choices[0].message.content
    assert streamed.usage.completion_tokens == whole.usage.completion_tokens


def test_structured_output(to: dict[str, Any]) -> None:
    answer: Any = litellm.completion(messages=said(EXTRACT), response_format=Person, **to)
    assert Person.model_validate_json(answer.choices[0].message.content).model_dump() == ANNA


@pytest.mark.parametrize("streamed", [False, True])
def test_tools(to: dict[str, Any], add: AddTool, streamed: bool) -> None:
    messages = said(USE_TOOL)
    first: Any = litellm.completion(messages=messages, tools=[TOOL], stream=streamed, **to)
    if streamed:
        first = litellm.stream_chunk_builder(list(first))
    assert first.choices[0].finish_reason == "tool_calls"
    message = first.choices[0].message
    (call,) = message.tool_calls
    result = add(**json.loads(call.function.arguments))
    messages += [message, {"role": "tool", "tool_call_id": call.id, "content": result}]
    second: Any = litellm.completion(messages=messages, tools=[TOOL], **to)
    assert "42" in second.choices[0].message.content
    assert add.calls == [(17, 25)]


def test_responses(to: dict[str, Any]) -> None:
    whole: Any = litellm.responses(input=GREET, **to)
    events: Any = litellm.responses(input=GREET, stream=True, **to)
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == whole.output_text


def test_errors_are_typed(to: dict[str, Any]) -> None:
    with pytest.raises(litellm.AuthenticationError):
        litellm.completion(messages=said(GREET), **to | {"api_key": "another"})
    with pytest.raises(litellm.BadRequestError, match="temperature"):
        litellm.completion(messages=said(GREET), **to | {"temperature": -1})


def test_async(to: dict[str, Any]) -> None:
    async def use() -> None:
        whole: Any = await litellm.acompletion(messages=said(GREET), **to)
        stream: Any = await litellm.acompletion(messages=said(GREET), stream=True, **to)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        assert text == whole.choices[0].message.content

    asyncio.run(use())
