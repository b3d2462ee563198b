"""OpenAI's own SDK, which holds every answer to its types: chat completions and responses."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import openai
import pytest
from pydantic import BaseModel
from served import ANNA, EXTRACT, GREET, MODEL, USE_TOOL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from served import AddTool, Server

PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "required": ["a", "b"],
    "additionalProperties": False,
}
FUNCTION: dict[str, Any] = {"name": "add", "description": "Add two numbers", "parameters": PARAMETERS}
TOOL: Any = {"type": "function", "function": FUNCTION | {"strict": True}}
ASK: list[Any] = [{"role": "user", "content": USE_TOOL}]


class Person(BaseModel):
    name: str
    age: int


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=server.url, api_key=server.key, max_retries=0, _strict_response_validation=True
    ) as client:
        yield client


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).object == "model"


def test_chat_streams_what_it_answers(client: openai.OpenAI) -> None:
    ask: Any = {"model": MODEL, "messages": [{"role": "user", "content": GREET}], "temperature": 0}
    whole = client.chat.completions.create(**ask)
    with client.chat.completions.stream(**ask, stream_options={"include_usage": True}) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()
    assert whole.choices[0].message.content
    assert "".join(deltas) == final.choices[0].message.content == whole.choices[0].message.content
    assert final.usage is not None
    assert whole.usage is not None
    assert final.usage.completion_tokens == whole.usage.completion_tokens


def test_completions(client: openai.OpenAI, server: Server) -> None:
    ask: Any = {"model": MODEL, "prompt": GREET, "temperature": 0, "max_tokens": 8}
    whole = client.completions.create(**ask).choices[0].text
    # OpenAI streams `"finish_reason": null` too, which its SDK's type of a whole answer lacks.
    with openai.OpenAI(base_url=server.url, api_key=server.key) as lenient:
        stream: Any = lenient.completions.create(**ask, stream=True)
        assert "".join(choice.text for chunk in stream for choice in chunk.choices) == whole


def test_structured_output(client: openai.OpenAI) -> None:
    ask: Any = {"model": MODEL, "messages": [{"role": "user", "content": EXTRACT}], "temperature": 0}
    message = client.chat.completions.parse(**ask, response_format=Person).choices[0].message
    assert message.parsed == Person.model_validate(ANNA)
    with client.chat.completions.stream(**ask, response_format=Person) as stream:
        streamed = stream.get_final_completion().choices[0].message
    assert streamed.parsed == message.parsed


@pytest.mark.parametrize("choice", ["auto", "required", {"type": "function", "function": {"name": "add"}}])
def test_tools(client: openai.OpenAI, add: AddTool, choice: Any) -> None:
    ask: Any = {"model": MODEL, "tools": [TOOL], "temperature": 0}
    first = client.chat.completions.parse(**ask, messages=ASK, tool_choice=choice).choices[0]
    assert first.finish_reason == "tool_calls"
    with client.chat.completions.stream(**ask, messages=ASK, tool_choice=choice) as stream:
        streamed = stream.get_final_completion().choices[0].message
    messages: list[Any] = [first.message, streamed]
    for message in messages:
        (call,) = message.tool_calls
        arguments: Any = call.function.parsed_arguments
        assert arguments == {"a": 17, "b": 25}
        result: Any = {"role": "tool", "tool_call_id": call.id, "content": add(**arguments)}
        second = client.chat.completions.create(**ask, messages=[*ASK, message, result]).choices[0]
        assert "42" in (second.message.content or "")


def test_responses(client: openai.OpenAI) -> None:
    ask: Any = {"model": MODEL, "input": GREET, "temperature": 0}
    whole = client.responses.create(**ask)
    with client.responses.stream(**ask) as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
    assert whole.status == "completed"
    assert "".join(deltas) == whole.output_text
    parsed = client.responses.parse(model=MODEL, input=EXTRACT, temperature=0, text_format=Person)
    assert parsed.output_parsed == Person.model_validate(ANNA)


def test_tools_of_responses(client: openai.OpenAI, add: AddTool) -> None:
    ask: Any = {"model": MODEL, "tools": [{"type": "function", "strict": True, **FUNCTION}], "temperature": 0}
    first = client.responses.create(**ask, input=USE_TOOL)
    (call,) = first.output
    assert call.type == "function_call"
    result = add(**json.loads(call.arguments))
    output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": result}
    second = client.responses.create(**ask, input=[output], previous_response_id=first.id)
    assert "42" in second.output_text


def test_errors_are_typed(client: openai.OpenAI, server: Server) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=ASK, temperature=-1)
    assert caught.value.param == "temperature"
    stranger = client.with_options(api_key="another")
    with pytest.raises(openai.AuthenticationError):
        stranger.models.list()


def test_async(server: Server) -> None:
    async def use() -> None:
        async with openai.AsyncOpenAI(
            base_url=server.url, api_key=server.key, _strict_response_validation=True
        ) as client:
            ask: Any = {"model": MODEL, "messages": ASK, "temperature": 0}
            whole = await client.chat.completions.create(**ask)
            async with client.chat.completions.stream(**ask) as stream:
                final = await stream.get_final_completion()
            assert final.choices[0].message.content == whole.choices[0].message.content

    asyncio.run(use())
