"""langchain-openai's ChatOpenAI, over chat completions and over responses."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import StructuredTool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel
from served import ANNA, EXTRACT, GREET, MODEL, USE_TOOL

if TYPE_CHECKING:
    from served import AddTool, Server


class Person(BaseModel):
    name: str
    age: int


def connect(server: Server, **fields: Any) -> Any:
    return ChatOpenAI(
        model=MODEL, base_url=server.url, api_key=server.key, temperature=0, max_retries=0, **fields
    )


@pytest.fixture(params=[False, True], ids=["completions", "responses"])
def chat(request: pytest.FixtureRequest, server: Server) -> Any:
    return connect(server, stream_usage=True, use_responses_api=request.param)


def test_chat_streams_what_it_answers(chat: Any) -> None:
    whole = chat.invoke(GREET)
    assert whole.text
    assert whole.usage_metadata["output_tokens"] > 0
    streamed = None
    for chunk in chat.stream(GREET):
        streamed = chunk if streamed is None else streamed + chunk
    assert streamed is not None
    assert streamed.text == whole.text
    assert streamed.usage_metadata["output_tokens"] == whole.usage_metadata["output_tokens"]


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output(chat: Any, method: str) -> None:
    assert chat.with_structured_output(Person, method=method).invoke(EXTRACT) == Person.model_validate(ANNA)


def test_json_mode(chat: Any) -> None:
    assert chat.with_structured_output(None, method="json_mode").invoke(EXTRACT) == ANNA


@pytest.mark.parametrize("choice", ["auto", "any", "add"])
def test_tools(chat: Any, add: AddTool, choice: str) -> None:
    def sums(a: int, b: int) -> str:
        return add(a, b)

    tool = StructuredTool.from_function(sums, name="add", description="Add two numbers")
    able = chat.bind_tools([tool], tool_choice=choice)
    messages: list[Any] = [HumanMessage(USE_TOOL)]
    whole = able.invoke(messages)
    streamed = None
    for chunk in able.stream(messages):
        streamed = chunk if streamed is None else streamed + chunk
    assert streamed is not None
    for message in (whole, streamed):
        (call,) = message.tool_calls
        assert (call["name"], call["args"]) == ("add", {"a": 17, "b": 25})
    result = tool.invoke(whole.tool_calls[0])
    assert isinstance(result, ToolMessage)
    assert "42" in chat.bind_tools([tool]).invoke([*messages, whole, result]).text


def test_async(server: Server) -> None:
    async def use() -> None:
        # In one loop: clients made from the same fields share their connections.
        for responses in (False, True):
            chat = connect(server, use_responses_api=responses)
            whole = await chat.ainvoke(GREET)
            assert "".join([chunk.text async for chunk in chat.astream(GREET)]) == whole.text

    asyncio.run(use())
