"""Calls that a model chooses to make, in every format: once one begins, it is one that validates.

The models of `habits` begin calls as real ones do, and then would go on with arguments that are wrong.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import habits
import jsonschema
import pytest

from mlxcel import LLM

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import openai

pytestmark = pytest.mark.e2e

PAINT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "colour": {"enum": ["red", "deep blue"]},
        "size": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["colour", "size"],
    "additionalProperties": False,
}
ADD: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "sure": {"type": "boolean"}},
    "required": ["a"],
    "additionalProperties": False,
}
SCHEMAS = {"paint": PAINT, "add": ADD}
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": schema}} for name, schema in SCHEMAS.items()
]
MESSAGES: Any = [{"role": "user", "content": "Do it."}]
ASK = "<|im_start|>assistant\n"
END = "<|im_end|>"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n"
)
HARMONY = (
    "<|start|>system<|message|>Reasoning: {{ reasoning_effort or 'medium' }}<|end|>"
    "{% if tools %}<|start|>developer<|message|>{% for t in tools %}{{ t.function | tojson }}{% endfor %}"
    "<|end|>{% endif %}{% for m in messages %}<|start|>{{ m.role }}"
    "{% if m.role == 'assistant' %}<|channel|>final{% endif %}<|message|>{{ m.content }}<|end|>{% endfor %}"
    "<|start|>assistant"
)
MARKERS = ["<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>", "<|call|>", "<|constrain|>"]
THOUGHT = "<|channel|>analysis<|message|>I must paint.<|end|><|start|>assistant"


@dataclass(frozen=True)
class Writer:
    """How a family writes, and what a model of it is shown."""

    parser: str | None
    texts: list[str]
    special: tuple[str, ...] = ()
    pieces: tuple[str, ...] = ()
    template: str = CHATML
    stops: tuple[str, ...] = (END,)
    architecture: str = "LLAMA"


def said(*answers: str) -> list[str]:
    return [f"{ASK}{answer}{END}" for answer in answers]


WRITERS = {
    "hermes": Writer(
        "hermes",
        said(
            '<tool_call>\n{"name": "paint", "arguments": {"colour": "green", "size": "big"}}\n</tool_call>',
            '<tool_call>\n{"name": "add", "arguments": [1, 2]}\n</tool_call>',
            "No, thanks.",
        ),
        (),
        ("<tool_call>\n", '{"name": "', '", "arguments":'),
    ),
    "llama3": Writer(
        "llama3_json",
        said(
            '{"name": "paint", "parameters": {"colour": "green", "size": "big"}}',
            '{"name": "add", "parameters": "7"}',
            '<|python_tag|>{"name": "add", "parameters": {}}',
            '{"name": "Ada", "age": 36}',
            "No, thanks.",
        ),
        ("<|python_tag|>",),
        ('{"name": "', '", "parameters":', '", "age": '),
    ),
    "pythonic": Writer(
        "pythonic",
        said(
            '[paint(colour="green", size="big")]',
            "[add(sure=maybe), add()]",
            "[add(x) is a sum]",
            "[1, 2]",
            "No, thanks.",
        ),
    ),
    "mistral": Writer(
        "mistral",
        said('[TOOL_CALLS]paint[ARGS]{"colour": "green"}', "[TOOL_CALLS]add[ARGS][1]", "No, thanks."),
        ("[TOOL_CALLS]", "[ARGS]"),
    ),
    "mistral list": Writer(
        "mistral",
        said('[TOOL_CALLS][{"name": "paint", "arguments": {"colour": "green"}}]', "No, thanks."),
        ("[TOOL_CALLS]",),
        ('[{"name": "', '", "arguments":'),
    ),
    "qwen3-coder": Writer(
        "qwen3_coder",
        said(
            "<tool_call>\n<function=paint>\n<parameter=colour>\ngreen\n</parameter>\n</function>\n</tool_call>",
            "<tool_call>\n<function=add>\n<parameter=a>\nseven\n</parameter>\n</function>\n</tool_call>",
            "No, thanks.",
        ),
        (),
        ("<function=",),
    ),
    "harmony": Writer(
        None,
        [
            (
                f"<|start|>assistant{THOUGHT}<|channel|>commentary to=functions.paint "
                '<|constrain|>json<|message|>{"colour": "green"}<|call|>'
            ),
            "<|start|>assistant to=functions.add<|channel|>commentary json<|message|>[1, 2]<|call|>",
            f"<|start|>assistant{THOUGHT}<|channel|>commentary to=python <|message|>1 + 2<|call|>",
            f"<|start|>assistant{THOUGHT}<|channel|>final<|message|>No, thanks.<|return|>",
        ],
        tuple(MARKERS),
        ("commentary", "analysis", " to=", "functions.", "final"),
        HARMONY,
        ("<|return|>", "<|call|>"),
        "GPT_OSS",
    ),
}


@pytest.fixture(scope="module", params=WRITERS, ids=lambda name: name.replace(" ", "-"))
def client(
    request: pytest.FixtureRequest, real_binary: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[openai.OpenAI]:
    writer = WRITERS[request.param]
    folder = habits.write(
        tmp_path_factory.mktemp("habits"),
        getattr(habits, writer.architecture),
        writer.special,
        writer.pieces,
        writer.template,
        writer.texts,
        writer.stops,
    )
    args = ("--tool-call-parser", writer.parser) if writer.parser else ()
    with LLM(folder, binary=real_binary, extra_args=args) as llm:
        yield llm.openai_client


def choices(client: openai.OpenAI, **fields: Any) -> Iterator[Any]:
    create: Any = client.chat.completions.create
    for seed in range(6):
        asked = {"temperature": 0.8, "max_tokens": 150, "n": 8, "seed": seed, "tools": TOOLS}
        yield from create(model="m", messages=MESSAGES, **asked | fields).choices


def check(choice: Any) -> int:
    """Calls that are complete, each of which validates."""
    calls = choice.message.tool_calls or []
    assert (choice.finish_reason == "tool_calls") <= bool(calls)
    complete = calls[:-1] if choice.finish_reason == "length" else calls
    for call in complete:
        jsonschema.validate(json.loads(call.function.arguments), SCHEMAS[call.function.name])
    return len(complete)


@pytest.mark.parametrize("parallel", [True, False])
def test_a_call_that_has_begun_validates_and_text_stays_text(client: openai.OpenAI, parallel: bool) -> None:
    calls, texts = 0, 0
    for choice in choices(client, parallel_tool_calls=parallel):
        calls += check(choice)
        texts += choice.finish_reason == "stop"
        assert parallel or len(choice.message.tool_calls or ()) <= 1
    assert calls > 4
    assert texts > 4


def test_what_is_left_out_of_a_schema_is_named_and_the_rest_holds(client: openai.OpenAI) -> None:
    function = {"name": "paint", "parameters": PAINT | {"not": {"required": ["colours"]}}}
    tools = [{"type": "function", "function": function}, TOOLS[1]]
    create: Any = client.chat.completions.with_raw_response.create
    for stream in (False, True):
        answer = create(model="m", messages=MESSAGES, tools=tools, max_tokens=1, stream=stream)
        assert answer.headers["x-mlxcel-ignored"] == "tools.paint.not"
    assert sum(map(check, choices(client, tools=tools))) > 4


def test_a_call_that_is_asked_for_is_made(client: openai.OpenAI) -> None:
    named = {"type": "function", "function": {"name": "add"}}
    for choice in ("required", named):
        ended = 0
        for made in choices(client, tool_choice=choice, parallel_tool_calls=False):
            if made.finish_reason == "length":
                continue
            ended += check(made)
            assert made.finish_reason == "tool_calls"
            assert choice == "required" or made.message.tool_calls[0].function.name == "add"
        assert ended > 4


def test_an_answer_in_a_format_validates(client: openai.OpenAI) -> None:
    format_ = {"type": "json_schema", "json_schema": {"name": "paint", "schema": PAINT}}
    ended = 0
    for tools in (None, TOOLS):
        for choice in choices(client, response_format=format_, tools=tools):
            if choice.finish_reason == "stop":
                ended += 1
                jsonschema.validate(json.loads(choice.message.content), PAINT)
            check(choice)
    assert ended > 4


@pytest.mark.parametrize("client", ["harmony"], indirect=True)
def test_thoughts_of_harmony_are_told_apart_and_bounded(client: openai.OpenAI) -> None:
    for tools in (None, TOOLS):
        told = [summary(choice) for choice in choices(client, tools=tools, temperature=0.3)]
        assert any(answer["reasoning"] == "I must paint." for answer in told)
        assert any(answer["content"] for answer in told)
        for choice in choices(client, tools=tools, extra_body={"thinking_budget": 1}):
            check(choice)
            assert len(summary(choice)["reasoning"].split()) <= 1


@pytest.mark.parametrize(
    "fields", [{}, {"tool_choice": "required"}, {"tools": None}], ids=["auto", "required", "none"]
)
def test_deltas_assemble_to_the_whole_answer(client: openai.OpenAI, fields: dict[str, Any]) -> None:
    whole = [summary(choice) for choice in choices(client, **fields)]
    create: Any = client.chat.completions.create
    streamed: list[dict[str, Any]] = []
    for seed in range(6):
        asked = {"temperature": 0.8, "max_tokens": 150, "n": 8, "seed": seed, "tools": TOOLS}
        parts = [{"content": "", "reasoning": "", "calls": []} for _ in range(8)]
        for chunk in create(model="m", messages=MESSAGES, stream=True, **asked | fields):
            for choice in chunk.choices:
                add(parts[choice.index], choice)
        streamed += parts
    assert streamed == whole


def summary(choice: Any) -> dict[str, Any]:
    message = choice.message
    calls = [[call.function.name, call.function.arguments] for call in message.tool_calls or ()]
    reasoning = getattr(message, "reasoning_content", None) or ""
    told = {"content": message.content or "", "reasoning": reasoning, "calls": calls}
    return told | {"finish": choice.finish_reason}


def add(told: dict[str, Any], choice: Any) -> None:
    told["content"] += choice.delta.content or ""
    told["reasoning"] += getattr(choice.delta, "reasoning_content", None) or ""
    for call in choice.delta.tool_calls or ():
        if call.function.name:
            told["calls"].append([call.function.name, ""])
        told["calls"][-1][1] += call.function.arguments or ""
    if choice.finish_reason:
        told["finish"] = choice.finish_reason
