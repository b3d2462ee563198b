"""instructor, in each of the modes in which it asks for structured output."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import instructor
import openai
import pytest
from pydantic import BaseModel, Field
from served import ANNA, EXTRACT, GREET, MODEL, USE_TOOL

if TYPE_CHECKING:
    from served import AddTool, Server

MODES = [
    instructor.Mode.TOOLS,
    instructor.Mode.JSON,
    instructor.Mode.JSON_SCHEMA,
]


class Person(BaseModel):
    name: str
    age: int


class Add(BaseModel):
    """Add two numbers."""

    a: int = Field(description="The first number")
    b: int = Field(description="The second number")


def connect(server: Server, mode: Any) -> Any:
    return instructor.from_openai(
        openai.OpenAI(
            base_url=server.url, api_key=server.key, max_retries=0, _strict_response_validation=True
        ),
        mode=mode,
    )


def asking(content: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": content}]
    return {"model": MODEL, "messages": messages, "temperature": 0, "max_tokens": 200, "max_retries": 0}


def test_chat_streams_what_it_answers(server: Server) -> None:
    client = connect(server, instructor.Mode.TOOLS)
    whole = client.chat.completions.create(response_model=None, **asking(GREET))
    chunks = client.chat.completions.create(response_model=None, stream=True, **asking(GREET))
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == whole.choices[0].message.content


@pytest.mark.parametrize("mode", MODES)
def test_structured_output(server: Server, mode: Any) -> None:
    client = connect(server, mode)
    person = client.create(response_model=Person, **asking(EXTRACT))
    assert isinstance(person, Person)
    assert person.model_dump() == ANNA
    partials = list(client.create_partial(response_model=Person, **asking(EXTRACT)))
    assert partials[-1].model_dump() == ANNA
    assert len(partials) > 1


def test_async(server: Server) -> None:
    async def use() -> Any:
        async with openai.AsyncOpenAI(base_url=server.url, api_key=server.key) as sdk:
            client: Any = instructor.from_openai(sdk, mode=instructor.Mode.JSON_SCHEMA)
            return await client.create(response_model=Person, **asking(EXTRACT))

    assert asyncio.run(use()).model_dump() == ANNA


def test_tools(server: Server, add: AddTool) -> None:
    """A call is an instance of the model; its result goes back as instructor's answers are kept."""
    client = connect(server, instructor.Mode.TOOLS)
    call, answer = client.create_with_completion(response_model=Add, **asking(USE_TOOL))
    assert isinstance(call, Add)
    message = answer.choices[0].message
    (made,) = message.tool_calls
    result = {"role": "tool", "tool_call_id": made.id, "content": add(call.a, call.b)}
    ask = asking(USE_TOOL)
    ask["messages"] += [message.model_dump(), result]
    assert add.calls == [(17, 25)]
    assert "42" in client.chat.completions.create(response_model=None, **ask).choices[0].message.content
