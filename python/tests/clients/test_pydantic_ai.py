"""pydantic-ai's agents, over chat completions and over responses."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput, Tool
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider
from served import ANNA, EXTRACT, GREET, MODEL, USE_TOOL

if TYPE_CHECKING:
    from served import AddTool, Server


class Person(BaseModel):
    name: str
    age: int


@pytest.fixture(params=[OpenAIChatModel, OpenAIResponsesModel], ids=["completions", "responses"])
def model(request: pytest.FixtureRequest, server: Server) -> Any:
    return request.param(MODEL, provider=OpenAIProvider(base_url=server.url, api_key=server.key))


def agent(model: Any, **fields: Any) -> Any:
    return Agent(model, model_settings={"temperature": 0}, retries=0, **fields)


def test_chat_streams_what_it_answers(model: Any) -> None:
    async def use() -> None:
        one = agent(model)
        whole = await one.run(GREET)
        assert whole.output
        async with one.run_stream(GREET) as stream:
            pieces = [piece async for piece in stream.stream_text(delta=True, debounce_by=None)]
            assert stream.usage.output_tokens == whole.usage.output_tokens
        assert len(pieces) > 1
        assert "".join(pieces) == whole.output

    asyncio.run(use())


def test_structured_output(model: Any) -> None:
    async def use() -> None:
        person = Person.model_validate(ANNA)
        one = agent(model, output_type=NativeOutput(Person))
        assert (await one.run(EXTRACT)).output == person
        async with one.run_stream(EXTRACT) as stream:
            partials = [partial async for partial in stream.stream_output(debounce_by=None)]
        assert partials[-1] == person

    asyncio.run(use())


def test_structured_output_through_a_tool(model: Any) -> None:
    assert agent(model, output_type=Person).run_sync(EXTRACT).output == Person.model_validate(ANNA)


@pytest.mark.parametrize("streamed", [False, True])
def test_tools(model: Any, add: AddTool, streamed: bool) -> None:
    def sums(a: int, b: int) -> str:
        """Add two numbers."""
        return add(a, b)

    one = agent(model, tools=[Tool(sums, name="add")])

    async def use() -> str:
        if not streamed:
            return str((await one.run(USE_TOOL)).output)
        async with one.run_stream(USE_TOOL) as stream:
            return str(await stream.get_output())

    assert "42" in asyncio.run(use())
    assert add.calls == [(17, 25)]
