"""Renders conversations with the very template that the model ships with."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

MODEL = Path(__file__).parent / "mlxcel-tiny"
ROLE_TOKENS = ("<|im_start|>", "<|im_end|>")
END_OF_TEXT = "<|endoftext|>"
SPECIAL_TOKENS = (
    END_OF_TEXT, *ROLE_TOKENS, "<think>", "</think>",
    "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>",
)  # fmt: skip


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    # As transformers renders it: Python's separators, keys in the order given.
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    environment.globals["raise_exception"] = _refuse
    return environment.from_string((MODEL / "chat_template.jinja").read_text())


def render(messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None = None, **options: bool) -> str:
    """The text of a conversation; `options` are the template's switches."""
    return _template().render(messages=messages, tools=tools, **options)
