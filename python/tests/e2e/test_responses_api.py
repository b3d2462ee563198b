"""The Responses API with the `openai` SDK, which checks every answer strictly, and the real binary."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import httpx2
import openai
import pydantic
import pytest

from mlxcel import ManagedServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openai.types.responses import ResponseIncludable

pytestmark = pytest.mark.e2e

MODEL = "mlxcel-tiny"
TINY = Path(__file__).parents[3] / "tiny-model" / "mlxcel-tiny"
PAINT: dict[str, Any] = {
    "type": "function",
    "name": "paint",
    "description": "Paint the wall",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"colour": {"enum": ["red", "blue"]}},
        "required": ["colour"],
        "additionalProperties": False,
    },
}


# The model's stop tokens are made unlikely.
STOP_TOKENS = json.loads((TINY / "generation_config.json").read_text())["eos_token_id"]
NEVER_ENDS = {"logit_bias": dict.fromkeys(map(str, STOP_TOKENS), -100)}


class Wall(pydantic.BaseModel):
    colour: Literal["red", "blue"]


@pytest.fixture(scope="module")
def sdk(real_binary: Path) -> Iterator[openai.OpenAI]:
    with ManagedServer(MODEL, binary=real_binary) as server:
        transport = httpx2.HTTPTransport(uds=server.socket_path)
        with (
            httpx2.Client(transport=transport, trust_env=False) as http,
            openai.OpenAI(
                api_key=server.api_key,
                base_url="http://localhost/v1",
                http_client=http,
                max_retries=0,
                _strict_response_validation=True,
            ) as client,
        ):
            yield client


def create(sdk: openai.OpenAI, **fields: Any) -> Any:
    call: Any = sdk.responses.create
    return call(**{"model": MODEL, "input": "Hello!", "temperature": 0, "max_output_tokens": 64} | fields)


def test_text_comes_back_with_what_was_asked(sdk: openai.OpenAI) -> None:
    response = create(
        sdk,
        instructions="Be brief.",
        metadata={"run": "1"},
        include=["message.output_text.logprobs"],
        top_logprobs=2,
    )
    assert response.status == "completed"
    assert response.output_text
    (message,) = response.output
    (text,) = message.content
    assert [len(token.top_logprobs) for token in text.logprobs] == [2] * len(text.logprobs)
    assert "".join(token.token for token in text.logprobs).startswith(text.text)
    assert response.instructions == "Be brief."
    assert response.metadata == {"run": "1"}
    usage = response.usage
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    assert create(sdk).output_text == create(sdk, input=[{"role": "user", "content": "Hello!"}]).output_text


def test_the_sdks_stream_helper_assembles_the_whole_response(sdk: openai.OpenAI) -> None:
    whole = create(sdk)
    with sdk.responses.stream(model=MODEL, input="Hello!", temperature=0, max_output_tokens=64) as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert "".join(deltas) == final.output_text == whole.output_text
    assert len(deltas) > 1


def test_thoughts_are_items_of_their_own(sdk: openai.OpenAI) -> None:
    question = {"input": "What is 17 + 25?", "max_output_tokens": 300}
    thoughtful = create(sdk, reasoning={"effort": "medium", "summary": "auto"}, **question)
    reasoning, message = thoughtful.output
    assert (reasoning.type, message.type) == ("reasoning", "message")
    (thought,) = reasoning.content
    assert thought.text
    assert 0 < thoughtful.usage.output_tokens_details.reasoning_tokens < thoughtful.usage.output_tokens
    events = create(sdk, stream=True, reasoning={"effort": "medium"}, **question)
    deltas = [event.delta for event in events if event.type == "response.reasoning_text.delta"]
    assert "".join(deltas) == thought.text
    plain = create(sdk, reasoning={"effort": "none"}, **question)
    assert [item.type for item in plain.output] == ["message"]
    with pytest.raises(openai.BadRequestError) as refused:
        create(sdk, reasoning={"effort": "low"}, **question)
    assert refused.value.param == "reasoning.effort"


def test_a_cut_off_answer_is_incomplete(sdk: openai.OpenAI) -> None:
    response = create(sdk, max_output_tokens=2)
    assert response.status == "incomplete"
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.output[0].status == "incomplete"
    events = list(create(sdk, max_output_tokens=2, stream=True))
    assert events[-1].type == "response.incomplete"
    assert [event.sequence_number for event in events] == list(range(len(events)))


def test_structured_output_parses(sdk: openai.OpenAI) -> None:
    ask: Any = {"model": MODEL, "input": "A colour?", "temperature": 1.8, "max_output_tokens": 200}
    response = sdk.responses.parse(text_format=Wall, **ask)
    assert response.output_parsed is not None
    assert response.output_parsed.colour in ("red", "blue")
    with sdk.responses.stream(text_format=Wall, **ask) as stream:
        parsed = stream.get_final_response().output_parsed
    assert parsed is not None
    free = create(sdk, text={"format": {"type": "json_object"}}, temperature=1.8, max_output_tokens=400)
    if free.status == "completed":
        assert isinstance(json.loads(free.output_text), dict)


def test_a_tool_is_called_and_its_result_sent_back(sdk: openai.OpenAI) -> None:
    ask: Any = {"model": MODEL, "input": "Paint!", "tools": [PAINT], "max_output_tokens": 200}
    with sdk.responses.stream(tool_choice="required", parallel_tool_calls=False, **ask) as stream:
        pieces = [e.delta for e in stream if e.type == "response.function_call_arguments.delta"]
        first = stream.get_final_response()
    (call,) = first.output
    assert call.type == "function_call"
    assert json.loads("".join(pieces))["colour"] in ("red", "blue")
    assert call.arguments == "".join(pieces)
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "done"}
    second = create(sdk, input=[result], previous_response_id=first.id, tools=[PAINT])
    assert second.status == "completed"
    by_hand = [{"role": "user", "content": "Paint!"}, *(item.to_dict() for item in first.output), result]
    assert create(sdk, input=by_hand, tools=[PAINT]).usage.input_tokens == second.usage.input_tokens
    named = create(sdk, tools=[PAINT], tool_choice={"type": "function", "name": "paint"}, temperature=1.8)
    assert [item.name for item in named.output] == ["paint"]


def test_a_conversation_goes_on_by_the_id_of_its_last_response(sdk: openai.OpenAI) -> None:
    first = create(sdk, instructions="Be brief.")
    second = create(sdk, input="And now?", previous_response_id=first.id)
    assert second.previous_response_id == first.id
    assert second.instructions is None
    items: list[Any] = list(sdk.responses.input_items.list(second.id, order="asc", limit=1))
    assert [item.type for item in items] == ["message"] * 3
    texts = [item.content[0].text for item in items]
    assert texts == ["Hello!", first.output_text, "And now?"]
    newest = sdk.responses.input_items.list(second.id, limit=2)
    assert newest.data[0].id == items[-1].id
    assert newest.has_more


def test_kept_responses_are_read_and_forgotten(sdk: openai.OpenAI) -> None:
    response = create(sdk)
    assert sdk.responses.retrieve(response.id) == response
    include: list[ResponseIncludable] = ["message.output_text.logprobs", "reasoning.encrypted_content"]
    assert sdk.responses.retrieve(response.id, include=include) == response
    assert len(sdk.responses.input_items.list(response.id, include=include).data) == 1
    sdk.responses.delete(response.id)
    for gone in (response.id, create(sdk, store=False).id, "resp_none"):
        with pytest.raises(openai.NotFoundError):
            sdk.responses.retrieve(gone)
        with pytest.raises(openai.BadRequestError) as refused:
            create(sdk, previous_response_id=gone)
        assert refused.value.code == "previous_response_not_found"


def test_background_responses_end_by_themselves_or_are_cancelled(sdk: openai.OpenAI) -> None:
    response = create(sdk, background=True)
    assert response.status == "queued"
    deadline = time.monotonic() + 60
    while response.status in ("queued", "in_progress"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
        response = sdk.responses.retrieve(response.id)
    assert response.output_text == create(sdk).output_text
    assert sdk.responses.cancel(response.id).status == "completed"
    endless = create(sdk, background=True, max_output_tokens=None, temperature=1, extra_body=NEVER_ENDS)
    assert sdk.responses.cancel(endless.id).status == "cancelled"
    assert sdk.responses.retrieve(endless.id).status == "cancelled"
    with pytest.raises(openai.BadRequestError):
        sdk.responses.cancel(create(sdk).id)


def test_tokens_are_counted_before_they_are_spent(sdk: openai.OpenAI) -> None:
    counted = sdk.responses.input_tokens.count(model=MODEL, input="Hello!", instructions="Be brief.")
    assert counted.input_tokens == create(sdk, instructions="Be brief.").usage.input_tokens


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            "input[0].content[0]",
        ),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"temperature": -1}, "temperature"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"reasoning": {"summary": "detailed"}}, "reasoning.summary"),
        ({"service_tier": "flex"}, "service_tier"),
    ],
)
def test_what_cannot_be_done_is_named(sdk: openai.OpenAI, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        create(sdk, **fields)
    assert refused.value.param == param
