"""The route methods with the real server, and the list of endpoints against what it says it has."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openai
import pytest

from mlxcel import LLM, AsyncLLM

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.e2e

ENDPOINTS = tomllib.loads((Path(__file__).parents[1] / "endpoints.toml").read_text())


@pytest.fixture(scope="module")
def llm(real_binary: Path) -> Iterator[LLM]:
    with LLM("mlxcel-tiny", binary=real_binary) as llm:
        yield llm


def test_every_endpoint_is_accounted_for(llm: LLM) -> None:
    paths = llm.openapi()["paths"]
    there = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    accounted = {*ENDPOINTS["covered"], *ENDPOINTS["excluded"]}
    assert there <= accounted, f"in neither list of tests/endpoints.toml: {sorted(there - accounted)}"


def test_the_servers_own_routes(llm: LLM) -> None:
    assert llm.health() == {"status": "ok"}
    assert llm.version()["mlx_version"]
    assert llm.props()["n_ctx"] > 0
    assert len(llm.slots()) == llm.props()["total_slots"]
    assert "# TYPE" in llm.metrics()
    assert llm.retrieve_model(llm.model).id == llm.model
    prompt = llm.apply_template([{"role": "user", "content": "Hello"}])
    assert "Hello" in prompt
    assert llm.apply_template("Hello", add_generation_prompt=False) in prompt


def test_a_response_is_made_kept_and_forgotten(llm: LLM) -> None:
    answer = llm.responses("What is 17 + 25?", temperature=0)
    assert "42" in answer.output_text
    assert llm.retrieve_response(answer.id).output_text == answer.output_text
    assert llm.response_input_items(answer.id)["data"][0]["role"] == "user"
    assert answer.usage is not None
    assert llm.response_input_tokens("What is 17 + 25?") == answer.usage.input_tokens
    llm.delete_response(answer.id)
    with pytest.raises(openai.NotFoundError):
        llm.retrieve_response(answer.id)


def test_a_message_in_anthropics_form(llm: LLM) -> None:
    message = llm.messages("What is 17 + 25?", max_tokens=40, temperature=0)
    (block,) = message["content"]
    assert "42" in block["text"]
    usage = message["usage"]
    read = usage["input_tokens"] + usage["cache_read_input_tokens"]
    assert llm.count_message_tokens("What is 17 + 25?") == read
    with llm.messages_stream("What is 17 + 25?", max_tokens=40, temperature=0) as stream:
        deltas = [event["delta"]["text"] for event in stream if event["type"] == "content_block_delta"]
    assert "".join(deltas) == block["text"]
    # Anthropic's envelope, told as well as OpenAI's.
    with pytest.raises(openai.BadRequestError, match="`container` is not supported"):
        llm.messages("Hello", max_tokens=4, container="a")


def test_a_response_in_the_background_is_cancelled(llm: LLM) -> None:
    begun = llm.responses("Count from 1 to 9.", background=True, store=True)
    assert llm.cancel_response(begun.id).status in ("cancelled", "completed")


def test_a_streamed_response(llm: LLM) -> None:
    with llm.responses_stream("What is 17 + 25?", temperature=0) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
    assert "42" in text
    for event in llm.responses_stream("Count from 1 to 9."):
        assert event.type == "response.created"
        break  # what is left is not generated


async def test_the_same_awaited(real_binary: Path) -> None:
    async with AsyncLLM("mlxcel-tiny", binary=real_binary) as llm:
        assert await llm.health() == {"status": "ok"}
        answer = await llm.responses("What is 17 + 25?", temperature=0)
        assert "42" in answer.output_text
        async with llm.responses_stream("What is 17 + 25?", temperature=0) as stream:
            kinds = [event.type async for event in stream]
        assert kinds[0] == "response.created"
        assert kinds[-1] == "response.completed"


def test_messages_in_anthropics_form(llm: LLM) -> None:
    asked: dict[str, Any] = {"max_tokens": 50, "temperature": 0}
    answer = llm.messages("What is 17 + 25?", system="Be brief.", **asked)
    assert "42" in answer["content"][0]["text"]
    whole = llm.messages("What is 17 + 25?", **asked)
    read = whole["usage"]["input_tokens"] + whole["usage"]["cache_read_input_tokens"]
    assert llm.count_message_tokens("What is 17 + 25?") == read
    with llm.messages_stream("What is 17 + 25?", **asked) as stream:
        events = list(stream)
    assert [events[0]["type"], events[-1]["type"]] == ["message_start", "message_stop"]
    deltas = [event["delta"]["text"] for event in events if event["type"] == "content_block_delta"]
    assert "".join(deltas) == whole["content"][0]["text"]
    with pytest.raises(openai.BadRequestError):
        llm.messages("What is 17 + 25?", max_tokens=-1)
