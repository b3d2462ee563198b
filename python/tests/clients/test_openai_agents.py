"""openai-agents, over responses (its default) and over chat completions."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from pydantic import BaseModel
from served import ANNA, EXTRACT, GREET, MODEL, USE_TOOL

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from served import AddTool, Server

set_tracing_disabled(True)  # it would go to OpenAI


class Person(BaseModel):
    name: str
    age: int


@pytest.fixture(params=[OpenAIResponsesModel, OpenAIChatCompletionsModel], ids=["responses", "completions"])
def run(request: pytest.FixtureRequest, server: Server) -> Callable[..., Any]:
    """Runs an agent's whole loop; gives the result and the text that was streamed."""

    async def loop(prompt: str, streamed: bool, fields: dict[str, Any]) -> tuple[Any, str]:
        async with AsyncOpenAI(
            base_url=server.url, api_key=server.key, max_retries=0, _strict_response_validation=True
        ) as client:
            model = request.param(MODEL, client)
            settings = ModelSettings(temperature=0, include_usage=True)
            agent: Any = Agent(name="tester", model=model, model_settings=settings, **fields)
            if not streamed:
                return await Runner.run(agent, prompt), ""
            running = Runner.run_streamed(agent, prompt)
            pieces = [
                event.data.delta
                async for event in running.stream_events()
                if event.type == "raw_response_event" and event.data.type == "response.output_text.delta"
            ]
            return running, "".join(pieces)

    def start(prompt: str, *, streamed: bool = False, **fields: Any) -> tuple[Any, str]:
        running: Coroutine[Any, Any, tuple[Any, str]] = loop(prompt, streamed, fields)
        return asyncio.run(running)

    return start


def test_chat_streams_what_it_answers(run: Callable[..., Any]) -> None:
    whole, _ = run(GREET)
    assert whole.final_output
    streamed, text = run(GREET, streamed=True)
    assert text == streamed.final_output == whole.final_output
    counts = [result.context_wrapper.usage.output_tokens for result in (whole, streamed)]
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("streamed", [False, True])
def test_structured_output(run: Callable[..., Any], streamed: bool) -> None:
    result, _ = run(EXTRACT, streamed=streamed, output_type=Person)
    assert result.final_output == Person.model_validate(ANNA)


@pytest.mark.parametrize("streamed", [False, True])
def test_tools(run: Callable[..., Any], add: AddTool, streamed: bool) -> None:
    def sums(a: int, b: int) -> str:
        """Add two numbers."""
        return add(a, b)

    result, _ = run(USE_TOOL, streamed=streamed, tools=[function_tool(sums, name_override="add")])
    assert "42" in result.final_output
    assert add.calls == [(17, 25)]
