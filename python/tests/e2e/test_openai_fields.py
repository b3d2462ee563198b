"""Every field of OpenAI's reference, by the SDK's own types, is honoured or refused by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from openai.types.chat.completion_create_params import CompletionCreateParamsBase as ChatParams
from openai.types.completion_create_params import CompletionCreateParamsBase as CompletionParams
from openai.types.responses.response_create_params import ResponseCreateParamsBase as ResponseParams

from mlxcel import ManagedServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.e2e

CONVERSATION = [{"role": "user", "content": "Hi"}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
FUNCTION = {"name": "f", "parameters": SCHEMA}
TOOL = {"type": "function", "function": FUNCTION}
FORMAT = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}

# A value of each field that asks for something, and what has to be sent along.
SHARED: dict[str, dict[str, Any]] = {
    "background": {"background": True},
    "frequency_penalty": {"frequency_penalty": 0.5},
    "logit_bias": {"logit_bias": {"5": -100}},
    "metadata": {"metadata": {"a": "b"}},
    "model": {"model": "mlxcel-tiny"},
    "n": {"n": 2},
    "parallel_tool_calls": {"parallel_tool_calls": False},
    "presence_penalty": {"presence_penalty": 0.5},
    "prompt_cache_key": {"prompt_cache_key": "k"},
    "safety_identifier": {"safety_identifier": "u"},
    "seed": {"seed": 7},
    "stop": {"stop": ["x", "y"]},
    "temperature": {"temperature": 0.5},
    "top_p": {"top_p": 0.9},
    "user": {"user": "u"},
}
HONOURED: dict[str, dict[str, dict[str, Any]]] = {
    "/v1/chat/completions": SHARED
    | {
        "logprobs": {"logprobs": True},
        "max_completion_tokens": {"max_completion_tokens": 3},
        "max_tokens": {"max_tokens": 3, "max_completion_tokens": None},
        "messages": {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]},
        "reasoning_effort": {"reasoning_effort": "medium"},
        "response_format": {"response_format": FORMAT},
        "stream_options": {"stream": True, "stream_options": {"include_usage": True}},
        "tool_choice": {"tools": [TOOL], "tool_choice": "required"},
        "tools": {"tools": [TOOL]},
        "top_logprobs": {"logprobs": True, "top_logprobs": 3},
    },
    "/v1/completions": SHARED
    | {
        "best_of": {"best_of": 2},
        "echo": {"echo": True},
        "logprobs": {"logprobs": 3},
        "max_tokens": {"max_tokens": 3},
        "prompt": {"prompt": [[1, 2], [3]]},
        "stream_options": {"stream": True, "stream_options": {"include_usage": True}},
    },
    "/v1/responses": SHARED
    | {
        "include": {"include": ["message.output_text.logprobs"]},
        "input": {"input": CONVERSATION},
        "instructions": {"instructions": "Be brief."},
        "max_output_tokens": {"max_output_tokens": 3},
        "max_tool_calls": {"max_tool_calls": 3},
        "reasoning": {"reasoning": {"effort": "medium"}},
        "store": {"store": False},
        "stream_options": {"stream": True, "stream_options": {"include_obfuscation": False}},
        "text": {"text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}}},
        "tool_choice": {"tools": [{"type": "function", **FUNCTION}], "tool_choice": "required"},
        "tools": {"tools": [{"type": "function", **FUNCTION}]},
        "top_logprobs": {"top_logprobs": 3},
        "truncation": {"truncation": "auto"},
    },
}
REFUSED: dict[str, Any] = {
    "access_programs": {"cyber": "standard"},
    "audio": {"voice": "alloy", "format": "wav"},
    "background_options": {"completion_window": "8h"},
    "context_management": [{"type": "compaction"}],
    "conversation": "conv_1",
    "function_call": "auto",
    "functions": [FUNCTION],
    "image": {"context_compression": "auto"},
    "modalities": ["text", "audio"],
    "moderation": {"model": "m"},
    "prediction": {"type": "content", "content": "x"},
    "previous_response_id": "resp_none",
    "prompt": {"id": "p"},
    "prompt_cache_options": {"mode": "explicit"},
    "prompt_cache_retention": "24h",
    "service_tier": "flex",
    "store": True,
    "suffix": "x",
    "verbosity": "low",
    "web_search_options": {},
}
PLAIN: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": CONVERSATION, "max_completion_tokens": 2},
    "/v1/completions": {"prompt": "Hi", "max_tokens": 2},
    "/v1/responses": {"input": "Hi", "max_output_tokens": 2},
}
FIELDS = [
    (path, field)
    for path, params in [
        ("/v1/chat/completions", ChatParams),
        ("/v1/completions", CompletionParams),
        ("/v1/responses", ResponseParams),
    ]
    for field in params.__annotations__
]


@pytest.fixture(scope="module")
def http(real_binary: Path) -> Iterator[httpx2.Client]:
    with ManagedServer("mlxcel-tiny", binary=real_binary) as server:
        transport = httpx2.HTTPTransport(uds=server.socket_path)
        headers = {"Authorization": f"Bearer {server.api_key}"}
        with httpx2.Client(
            transport=transport, base_url="http://localhost", headers=headers, timeout=60, trust_env=False
        ) as client:
            yield client


@pytest.mark.parametrize(("path", "field"), FIELDS)
def test_no_field_is_ignored(http: httpx2.Client, path: str, field: str) -> None:
    honoured = HONOURED[path].get(field)
    extra = {field: REFUSED[field]} if honoured is None else honoured
    response = http.post(path, json=PLAIN[path] | extra)
    assert "x-mlxcel-ignored" not in response.headers
    if honoured is None:
        assert response.status_code == 400, response.text
        assert response.json()["error"]["param"] == field
    else:
        assert response.status_code == 200, response.text
