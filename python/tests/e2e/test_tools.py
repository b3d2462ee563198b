"""Tool calls and reasoning with the `openai` SDK, the client, and the real binary."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import jsonschema
import openai
import pytest

from mlxcel import LLM

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.e2e

TINY = Path(__file__).parents[3] / "tiny-model" / "mlxcel-tiny"
ADD: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add two numbers",
        "parameters": {
            "type": "object",
            "properties": {
                "a": {"type": "integer", "description": "The first number"},
                "b": {"type": "integer", "description": "The second number"},
            },
            "required": ["a", "b"],
            "additionalProperties": False,
        },
    },
}
PAINT: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "paint",
        "parameters": {
            "type": "object",
            "properties": {"colour": {"enum": ["red", "blue"]}},
            "required": ["colour"],
            "additionalProperties": False,
        },
    },
}
TOOLS = [ADD, PAINT]
ASK = [{"role": "user", "content": "Use the tool to add 17 and 25."}]
NAMED = {"type": "function", "function": {"name": "paint"}}
THINK = {"chat_template_kwargs": {"enable_thinking": True}}
HOT = 1.8


@pytest.fixture(scope="module")
def llm(real_binary: Path) -> Iterator[LLM]:
    with LLM("mlxcel-tiny", binary=real_binary) as llm:
        yield llm


@pytest.fixture(scope="module")
def sdk(llm: LLM) -> Iterator[openai.OpenAI]:
    server = llm.server
    assert server is not None
    transport = httpx2.HTTPTransport(uds=server.socket_path)
    with (
        httpx2.Client(transport=transport, trust_env=False) as http,
        openai.OpenAI(
            api_key=server.api_key,
            base_url="http://localhost/v1",
            http_client=http,
            _strict_response_validation=True,
        ) as client,
    ):
        yield client


def chat(sdk: openai.OpenAI, **fields: Any) -> Any:
    body = {"model": "mlxcel-tiny", "messages": ASK, "temperature": 0, "max_tokens": 200} | fields
    create: Any = sdk.chat.completions.create
    return create(**body)


def only(sdk: openai.OpenAI, **fields: Any) -> Any:
    (choice,) = chat(sdk, **fields).choices
    return choice


def streamed(sdk: openai.OpenAI, **fields: Any) -> tuple[dict[str, Any], list[Any]]:
    """The message that the deltas assemble to, with its finish reason, and the deltas."""
    message: dict[str, Any] = {
        "content": "",
        "reasoning_content": "",
        "tool_calls": [],
        "finish_reason": None,
    }
    deltas = []
    for chunk in chat(sdk, stream=True, **fields):
        for choice in chunk.choices:
            deltas.append(choice.delta)
            message["content"] += choice.delta.content or ""
            message["reasoning_content"] += getattr(choice.delta, "reasoning_content", None) or ""
            for call in choice.delta.tool_calls or ():
                if call.id is not None:
                    assert call.index == len(message["tool_calls"])
                    assert call.type == "function"
                    message["tool_calls"].append([call.function.name, ""])
                assert call.index == len(message["tool_calls"]) - 1
                message["tool_calls"][-1][1] += call.function.arguments
            message["finish_reason"] = choice.finish_reason
    return message, deltas


def summary(choice: Any) -> dict[str, Any]:
    return {
        "content": choice.message.content or "",
        "reasoning_content": getattr(choice.message, "reasoning_content", None) or "",
        "tool_calls": [
            [call.function.name, call.function.arguments] for call in choice.message.tool_calls or ()
        ],
        "finish_reason": choice.finish_reason,
    }


def test_a_call_and_the_answer_to_its_result(sdk: openai.OpenAI) -> None:
    first = only(sdk, tools=[ADD])
    assert first.finish_reason == "tool_calls"
    assert first.message.content is None
    (call,) = first.message.tool_calls
    assert call.id.startswith("call_")
    assert (call.type, call.function.name) == ("function", "add")
    assert json.loads(call.function.arguments) == {"a": 17, "b": 25}

    result = {"role": "tool", "tool_call_id": call.id, "content": json.dumps({"result": 42})}
    second = chat(
        sdk, tools=[ADD], messages=[*ASK, first.message.model_dump(exclude_none=True), result]
    ).choices[0]
    assert second.finish_reason == "stop"
    assert "42" in second.message.content


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": TOOLS},
        {"tools": TOOLS, "tool_choice": "required", "temperature": HOT, "seed": 1},
        {"tools": TOOLS, "tool_choice": NAMED},
        {"tools": TOOLS, "extra_body": THINK},
        {"tools": TOOLS, "tool_choice": "none"},
        {"tools": TOOLS, "max_tokens": 12},
        {"extra_body": THINK},
        {"tools": TOOLS, "tool_choice": "required", "temperature": HOT, "seed": 2, "extra_body": THINK},
    ],
)
def test_streamed_deltas_assemble_to_the_whole_answer(sdk: openai.OpenAI, fields: dict[str, Any]) -> None:
    whole = only(sdk, **fields)
    message, deltas = streamed(sdk, **fields)
    assert message == summary(whole)
    assert deltas[0].role == "assistant"


def test_a_call_streams_its_name_before_its_arguments(sdk: openai.OpenAI) -> None:
    message, deltas = streamed(sdk, tools=[ADD])
    calls = [call for delta in deltas for call in delta.tool_calls or ()]
    assert (calls[0].function.name, calls[0].index) == ("add", 0)
    assert len(calls) > 2, "the arguments come as they are written"
    assert all(call.id is None and call.function.name is None for call in calls[1:])
    assert message["tool_calls"] == [["add", '{"a": 17, "b": 25}']]


@pytest.mark.parametrize("seed", range(6))
def test_a_required_call_validates_at_any_temperature(sdk: openai.OpenAI, seed: int) -> None:
    choice = chat(
        sdk, tools=TOOLS, tool_choice="required", temperature=HOT, seed=seed, max_tokens=400
    ).choices[0]
    if choice.finish_reason == "length":
        return
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    for call in choice.message.tool_calls:
        arguments = json.loads(call.function.arguments)
        if call.function.name == "add":
            assert set(arguments) == {"a", "b"}
            assert all(isinstance(value, int) for value in arguments.values())
        else:
            assert call.function.name == "paint"
            assert arguments in ({"colour": "red"}, {"colour": "blue"})


def test_a_schema_that_cannot_be_enforced_refuses_no_tool_that_is_not_strict(sdk: openai.OpenAI) -> None:
    parameters = ADD["function"]["parameters"] | {"not": {"required": ["c"]}}
    loose = {"type": "function", "function": ADD["function"] | {"parameters": parameters}}
    choice = only(sdk, tools=[loose])
    assert json.loads(choice.message.tool_calls[0].function.arguments) == {"a": 17, "b": 25}
    for stream in (False, True):
        raw: Any = sdk.chat.completions.with_raw_response.create
        answer = raw(model="m", messages=ASK, tools=[loose, PAINT], max_tokens=3, stream=stream)
        assert answer.headers["x-mlxcel-ignored"] == "tools.add.not"
    strict = {"type": "function", "function": loose["function"] | {"strict": True}}
    with pytest.raises(openai.BadRequestError, match="not"):
        chat(sdk, tools=[strict])


@pytest.mark.parametrize("parser", ["pythonic", "qwen3_coder", "llama3_json"])
def test_every_format_is_enforced(real_binary: Path, parser: str) -> None:
    parameters = {
        "type": "object",
        "properties": {
            "mood": {"$ref": "#/$defs/mood"},
            "sure": {"type": "boolean"},
            "words": {"type": "array", "items": {"type": "string", "maxLength": 8}, "maxItems": 2},
            "note": {"anyOf": [{"type": "string", "maxLength": 12}, {"type": "null"}]},
            "title": {"type": "string", "maxLength": 12},
        },
        "required": ["mood", "sure", "words"],
        "additionalProperties": False,
        "$defs": {"mood": {"type": "string", "enum": ["good", "so, so"]}},
    }
    tool = {"type": "function", "function": {"name": "feel", "parameters": parameters}}
    fields: dict[str, Any] = {"temperature": HOT, "max_tokens": 300, "parallel_tool_calls": False}
    ended = 0
    with LLM("mlxcel-tiny", binary=real_binary, extra_args=("--tool-call-parser", parser)) as llm:
        for seed in range(8):
            answer = llm.chat(ASK, tools=[tool], tool_choice="required", seed=seed, **fields)
            if answer.finish_reason == "length":
                continue
            ended += 1
            assert answer.finish_reason == "tool_calls"
            assert answer == ""
            for call in answer.tool_calls:
                assert call.name == "feel"
                jsonschema.validate(call.arguments, parameters)
    assert ended


def test_a_named_function_is_called_once(sdk: openai.OpenAI) -> None:
    choice = only(sdk, tools=TOOLS, tool_choice=NAMED)
    (call,) = choice.message.tool_calls
    assert call.function.name == "paint"
    assert json.loads(call.function.arguments)["colour"] in ("red", "blue")


def test_one_call_where_parallel_calls_are_off(sdk: openai.OpenAI) -> None:
    fields = {"tools": TOOLS, "tool_choice": "required", "temperature": HOT, "parallel_tool_calls": False}
    for seed in range(4):
        choice = only(sdk, seed=seed, **fields)
        assert len(choice.message.tool_calls) == 1


def test_strict_functions_hold_the_calls_that_the_model_chooses_to_make(sdk: openai.OpenAI) -> None:
    strict = {"type": "function", "function": ADD["function"] | {"strict": True}}
    choice = only(sdk, tools=[strict])
    assert json.loads(choice.message.tool_calls[0].function.arguments) == {"a": 17, "b": 25}
    choice = only(sdk, tools=[strict], messages=[{"role": "user", "content": "Hello!"}])
    assert choice.finish_reason == "stop"
    assert choice.message.content


def test_structured_output_beside_tools_is_either(sdk: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}
    response_format = {"type": "json_schema", "json_schema": {"name": "sum", "schema": schema}}
    for seed in range(3):
        choice = chat(sdk, tools=[ADD], response_format=response_format, temperature=HOT, seed=seed).choices[
            0
        ]
        if choice.finish_reason == "stop":
            assert isinstance(json.loads(choice.message.content)["sum"], int)
        for call in choice.message.tool_calls or ():
            assert call.function.name == "add"


def test_stop_strings_act_on_what_the_model_writes(sdk: openai.OpenAI) -> None:
    choice = only(sdk, tools=[ADD], stop=', "b"')
    assert choice.message.tool_calls[0].function.arguments == '{"a": 17'


def test_logprobs_are_those_of_all_tokens(sdk: openai.OpenAI) -> None:
    answer = chat(sdk, tools=[ADD], logprobs=True)
    text = "".join(token.token for token in answer.choices[0].logprobs.content)
    assert text.startswith('<tool_call>\n{"name": "add"')
    chunks = list(chat(sdk, tools=[ADD], logprobs=True, stream=True))
    content = [
        token for chunk in chunks for choice in chunk.choices for token in (choice.logprobs or _None).content
    ]
    assert "".join(token.token for token in content) == text


class _None:
    content: tuple[Any, ...] = ()


def test_several_choices_have_calls_of_their_own(sdk: openai.OpenAI) -> None:
    choices = chat(sdk, tools=[ADD], n=3).choices
    ids = {choice.message.tool_calls[0].id for choice in choices}
    assert len(ids) == 3


def test_thoughts_are_split_off(sdk: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "What is 17 + 25?"}]
    choice = only(sdk, messages=messages, extra_body=THINK)
    assert choice.message.reasoning_content
    assert "42" in choice.message.content
    assert "think" not in choice.message.content + choice.message.reasoning_content


def test_structured_output_begins_behind_the_thought(sdk: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}
    response_format = {"type": "json_schema", "json_schema": {"name": "sum", "schema": schema}}
    messages = [{"role": "user", "content": "What is 17 + 25?"}]
    choice = only(sdk, messages=messages, response_format=response_format, extra_body=THINK)
    assert choice.finish_reason == "stop"
    assert choice.message.reasoning_content
    assert isinstance(json.loads(choice.message.content)["sum"], int)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": TOOLS, "tool_choice": "always"}, "tool_choice"),
        (
            {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "x"}}},
            "tool_choice.function.name",
        ),
        ({"tool_choice": "required"}, "tool_choice"),
    ],
)
def test_what_is_wrong_is_named(sdk: openai.OpenAI, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        chat(sdk, **fields)
    assert caught.value.param == param


def test_a_schema_that_cannot_be_enforced_is_named(sdk: openai.OpenAI) -> None:
    parameters = {"type": "object", "properties": {"a": {"not": {"type": "string"}}}}
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    assert chat(sdk, tools=[tool])
    with pytest.raises(openai.BadRequestError, match="not"):
        chat(sdk, tools=[tool], tool_choice="required")


def test_the_client_has_calls_and_reasoning(llm: LLM) -> None:
    result = llm.chat(ASK, tools=[ADD], temperature=0)
    assert result.finish_reason == "tool_calls"
    assert result.tool_calls[0].arguments == {"a": 17, "b": 25}
    stream = llm.chat_stream(ASK, tools=[ADD], temperature=0)
    assert "".join(stream) == ""
    assert stream.result().tool_calls[0].name == "add"
    thought = llm.chat("What is 17 + 25?", temperature=0, chat_template_kwargs=THINK["chat_template_kwargs"])
    assert thought.reasoning
    assert "42" in thought


def test_a_template_without_tools_refuses_them_unless_the_format_is_named(
    real_binary: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(TINY, tmp_path / "plain")
    template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    (folder / "chat_template.jinja").write_text(template + "<|im_start|>assistant\n")
    with (
        LLM(folder, binary=real_binary) as plain,
        pytest.raises(openai.BadRequestError, match="--tool-call-parser"),
    ):
        plain.chat(ASK, tools=[ADD])
    with LLM(folder, binary=real_binary, extra_args=("--tool-call-parser", "hermes")) as told:
        forced = told.chat(ASK, tools=[ADD], tool_choice="required", max_tokens=200, temperature=0)
        assert forced.tool_calls[0].name == "add"
