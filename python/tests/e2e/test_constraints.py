"""A regular expression, a choice or a grammar holds the real server's outputs, by each of its names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import openai
import pytest

from mlxcel import LLM

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.e2e

ASKED: list[dict[str, str]] = [{"role": "user", "content": "What is 17 + 25?"}]
REGEX = r"[A-Z][a-z]{2,5}/[0-9]{2}"
CHOICE = ["forty-two", "forty", "no idea/none"]
LARK = 'start: "(" pair ("," pair)* ")"\npair: /[a-z]{1,4}/ "=" /[0-9]/\n'
GBNF = 'root ::= "(" pair ("," pair)* ")"\npair ::= [a-z] [a-z]? "=" [0-9]'
PAIRS = re.compile(r"\((?:[a-z]{1,4}=[0-9])(?:,[a-z]{1,4}=[0-9])*\)")


@pytest.fixture(scope="module")
def client(real_binary: Path) -> Iterator[openai.OpenAI]:
    with LLM("mlxcel-tiny", binary=real_binary) as llm:
        yield llm.openai_client


def fits(fields: dict[str, Any], text: str) -> bool:
    name = next(iter(fields))
    value = fields[name]
    if name == "structured_outputs":
        return fits(value, text)
    if "regex" in name:
        return re.fullmatch(REGEX, text) is not None
    if "choice" in name:
        return text in CHOICE
    return PAIRS.fullmatch(text) is not None


FORMS: list[dict[str, Any]] = [
    {"regex": REGEX},
    {"guided_regex": REGEX},
    {"choice": CHOICE},
    {"guided_choice": CHOICE},
    {"grammar": LARK},
    {"grammar": GBNF},
    {"guided_grammar": LARK},
    {"structured_outputs": {"regex": REGEX}},
    {"structured_outputs": {"choice": CHOICE}},
    {"structured_outputs": {"grammar": GBNF}},
]


@pytest.mark.parametrize("fields", FORMS, ids=lambda fields: "-".join([*fields]))
def test_outputs_are_held_to_it(client: openai.OpenAI, fields: dict[str, Any]) -> None:
    sampling: dict[str, Any] = {"temperature": 1.5, "max_tokens": 120, "seed": 3, "n": 4}
    chat = client.chat.completions.create(model="m", messages=ASKED, extra_body=fields, **sampling)  # type: ignore[arg-type]
    plain = client.completions.create(model="m", prompt="It is", extra_body=fields, **sampling)
    thoughtful = client.chat.completions.create(
        model="m",
        messages=ASKED,  # type: ignore[arg-type]
        extra_body=fields | {"chat_template_kwargs": {"enable_thinking": True}},
        **sampling,
    )
    texts = [(choice.message.content, choice.finish_reason) for choice in chat.choices]
    texts += [(choice.text, choice.finish_reason) for choice in plain.choices]
    texts += [(choice.message.content, choice.finish_reason) for choice in thoughtful.choices]
    ended = [text for text, reason in texts if reason == "stop"]
    assert ended
    for text in ended:
        assert text is not None
        assert fits(fields, text), text


def test_a_response_is_held_to_it(client: openai.OpenAI) -> None:
    response = client.responses.create(model="m", input="Hello", extra_body={"choice": CHOICE})
    assert response.output_text in CHOICE


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"regex": "a("}, "regex"),
        ({"regex": "(?=a)b"}, "regex"),
        ({"choice": []}, "choice"),
        ({"grammar": "start: missing"}, "grammar"),
        ({"grammar": "root ::= missing"}, "grammar"),
        ({"regex": "a", "choice": ["a"]}, "choice"),
        ({"regex": "a", "response_format": {"type": "json_object"}}, "regex"),
    ],
)
def test_what_cannot_be_is_named(client: openai.OpenAI, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="m", messages=ASKED, extra_body=fields)  # type: ignore[arg-type]
    assert caught.value.param == param
