"""`/apply-template` against transformers' `apply_chat_template`, through the real server."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from text_families import build
from text_folders import ask, write_model
from text_samples import texts
from transformers import AutoTokenizer

from support import connected

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx2

pytestmark = pytest.mark.e2e

# Everything that a template can see.
SEEN = """
{%- if stop is defined %}{{ raise_exception('No ' ~ stop) }}{% endif %}
{{- bos_token }}{{ messages | tojson }}
{{ tools | tojson(indent=2) }} {{ documents | tojson }}
{{ add_generation_prompt }} {{ extra | default('none') | tojson }}
{%- for message in messages %}
{{ loop.index }} {{ message.role }}:
{{ message.content | trim | replace('a', 'b') }}|{{ message.content[::-1] }}
{%- generation %}{{ message.reasoning_content | default('') | upper }}{% endgeneration %}
{%- endfor %}
"""
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "find",
            "description": 'Größe <b> & "it\'s"',
            "parameters": {"type": "object", "properties": {"q": {"type": "string", "default": 1.0}}},
        },
    }
]

words = texts(max_parts=4)
# Of few digits: what they are read as does not depend on how carefully that is done.
numbers = (
    st.floats(-1e9, 1e9)
    .map(lambda number: float(f"{number:.9g}"))
    .filter(lambda number: number == 0 or abs(number) > 1e-9)
)
leaves = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | numbers | words
values: st.SearchStrategy[Any] = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
arguments = st.dictionaries(words, values, max_size=3)


def call(arguments: dict[str, Any]) -> dict[str, Any]:
    return {"id": "abcdefghi", "type": "function", "function": {"name": "find", "arguments": arguments}}


messages = st.lists(
    st.one_of(
        st.builds(
            lambda role, text: {"role": role, "content": text}, st.sampled_from(["system", "user"]), words
        ),
        st.builds(
            lambda text, why: {"role": "assistant", "content": text, "reasoning_content": why}, words, words
        ),
        st.builds(
            lambda text, calls: {
                "role": "assistant",
                "content": text,
                "tool_calls": [call(it) for it in calls],
            },
            words,
            st.lists(arguments, min_size=1, max_size=2),
        ),
        st.builds(lambda text: {"role": "tool", "tool_call_id": "abcdefghi", "content": text}, words),
    ),
    min_size=1,
    max_size=5,
)


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, real_binary: Path
) -> Iterator[tuple[httpx2.Client, Any]]:
    folder = tmp_path_factory.mktemp("templates")
    tokenizer = build("gpt2")
    tokenizer.save(str(folder / "tokenizer.json"))
    named = [{"name": "default", "template": SEEN}, {"name": "tool_use", "template": f"With tools:{SEEN}"}]
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "chat_template": named}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    write_model(folder, tokenizer.get_vocab_size())
    with connected(str(folder), real_binary) as http:
        yield http, AutoTokenizer.from_pretrained(folder)


def as_openai_sends_them(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Arguments of calls as text."""
    messages = copy.deepcopy(messages)
    for message in messages:
        for made in message.get("tool_calls", []):
            made["function"]["arguments"] = json.dumps(made["function"]["arguments"])
    return messages


@given(messages=messages, tools=st.booleans(), end=st.booleans(), extra=values)
@settings(max_examples=150)
def test_a_conversation_is_rendered_as_transformers_does(
    served: tuple[httpx2.Client, Any], messages: list[dict[str, Any]], tools: bool, end: bool, extra: Any
) -> None:
    http, reference = served
    kwargs = {"extra": extra, "documents": [{"title": "é", "text": "x"}]}
    expected = reference.apply_chat_template(
        messages, tools=TOOLS if tools else None, add_generation_prompt=end, tokenize=False, **kwargs
    )
    body: dict[str, Any] = {"messages": as_openai_sends_them(messages), "add_generation_prompt": end}
    if tools:
        body["tools"] = TOOLS
    assert ask(http, "/apply-template", **body, chat_template_kwargs=kwargs)["prompt"] == expected


def test_what_a_template_raises_is_a_400_with_its_words(served: tuple[httpx2.Client, Any]) -> None:
    http, reference = served
    messages = [{"role": "user", "content": "Hi"}]
    with pytest.raises(jinja2.TemplateError) as raised:
        reference.apply_chat_template(messages, tokenize=False, stop="é 'x'")
    for path in ("/apply-template", "/v1/chat/completions"):
        response = http.post(path, json={"messages": messages, "chat_template_kwargs": {"stop": "é 'x'"}})
        assert response.status_code == 400
        assert response.json()["error"]["message"] == str(raised.value)
