"""The helpers of the `openai` SDK on `openai_client`, as the page on it shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import openai
import pytest
from pydantic import BaseModel

from mlxcel import LLM, AsyncLLM

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from openai import OpenAI

pytestmark = pytest.mark.e2e

ASK = "Extract name and age as JSON: Anna is 31 years old."
MESSAGES: Any = [{"role": "user", "content": ASK}]


class Person(BaseModel):
    name: str
    age: int


class Sum(BaseModel):
    """Add two numbers"""

    a: int
    b: int


ANNA = Person(name="Anna", age=31)
SUM = openai.pydantic_function_tool(Sum, name="add")
ADD: Any = [{"role": "user", "content": "Use the tool to add 17 and 25."}]


@pytest.fixture(scope="module")
def client(real_binary: Path) -> Iterator[OpenAI]:
    with LLM("mlxcel-tiny", binary=real_binary) as llm:
        yield llm.openai_client


def test_chat_answers_and_calls_are_parsed(client: OpenAI) -> None:
    answer = client.chat.completions.parse(
        model="mlxcel-tiny", messages=MESSAGES, response_format=Person, temperature=0
    )
    assert answer.choices[0].message.parsed == ANNA
    called = client.chat.completions.parse(model="mlxcel-tiny", messages=ADD, tools=[SUM], temperature=0)
    calls = called.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].function.parsed_arguments == Sum(a=17, b=25)


def test_chat_streams_with_the_helper(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model="mlxcel-tiny", messages=MESSAGES, response_format=Person, temperature=0
    ) as stream:
        text = "".join(event.delta for event in stream if event.type == "content.delta")
        final = stream.get_final_completion()
    assert Person.model_validate_json(text) == ANNA
    assert final.choices[0].message.parsed == ANNA


def test_responses_are_parsed_streamed_and_continued(client: OpenAI) -> None:
    parsed = client.responses.parse(model="mlxcel-tiny", input=ASK, text_format=Person, temperature=0)
    assert parsed.output_parsed == ANNA
    with client.responses.stream(model="mlxcel-tiny", input=ASK, text_format=Person, temperature=0) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        assert stream.get_final_response().output_parsed == ANNA
    assert Person.model_validate_json(text) == ANNA
    first = client.responses.create(model="mlxcel-tiny", input="What is 17 + 25?", temperature=0)
    second = client.responses.create(
        model="mlxcel-tiny", input="What is 3 + 4?", previous_response_id=first.id, temperature=0
    )
    assert "7" in second.output_text


async def test_the_helpers_of_the_async_client(real_binary: Path) -> None:
    async with AsyncLLM("mlxcel-tiny", binary=real_binary) as llm:
        client = llm.openai_client
        async with client.chat.completions.stream(
            model="mlxcel-tiny", messages=MESSAGES, response_format=Person, temperature=0
        ) as stream:
            final = await stream.get_final_completion()
        assert final.choices[0].message.parsed == ANNA
        parsed = await client.responses.parse(
            model="mlxcel-tiny", input=ASK, text_format=Person, temperature=0
        )
        assert parsed.output_parsed == ANNA
