"""What `/openapi.json` says is what the server answers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx2
import jsonschema
import pytest

from mlxcel import ManagedServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.e2e

MESSAGES = [{"role": "user", "content": "What is 17 + 25?"}]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]

ASKED: list[tuple[str, str, str, dict[str, Any] | None]] = [
    ("/", "get", "/", None),
    ("/health", "get", "/health", None),
    ("/version", "get", "/version", None),
    ("/props", "get", "/props", None),
    ("/slots", "get", "/slots", None),
    ("/v1/models", "get", "/v1/models", None),
    ("/v1/models/{id}", "get", "/v1/models/mlxcel-tiny", None),
    ("/tokenize", "post", "/tokenize", {"content": "a ü"}),
    ("/tokenize", "post", "/tokenize", {"content": "a ü", "with_pieces": True}),
    ("/detokenize", "post", "/detokenize", {"tokens": [5, 6]}),
    ("/apply-template", "post", "/apply-template", {"messages": MESSAGES, "tools": TOOLS}),
    ("/v1/completions", "post", "/v1/completions", {"prompt": "a", "max_tokens": 4}),
    (
        "/v1/completions",
        "post",
        "/v1/completions",
        {"prompt": ["a", "b"], "max_tokens": 4, "logprobs": 2, "echo": True},
    ),
    ("/v1/chat/completions", "post", "/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 4}),
    (
        "/v1/chat/completions",
        "post",
        "/v1/chat/completions",
        {
            "messages": MESSAGES,
            "tools": TOOLS,
            "tool_choice": "required",
            "logprobs": True,
            "top_logprobs": 2,
            "max_tokens": 200,
            "n": 2,
        },
    ),
    (
        "/v1/messages",
        "post",
        "/v1/messages",
        {
            "messages": MESSAGES,
            "system": "Be brief.",
            "thinking": {"type": "enabled", "budget_tokens": 8},
            "tools": [{"name": "f", "input_schema": {"type": "object"}}],
            "tool_choice": {"type": "any"},
            "max_tokens": 200,
        },
    ),
    ("/v1/messages/count_tokens", "post", "/v1/messages/count_tokens", {"messages": MESSAGES}),
]


@pytest.fixture(scope="module")
def client(real_binary: Path) -> Iterator[httpx2.Client]:
    with (
        ManagedServer("mlxcel-tiny", binary=real_binary) as server,
        httpx2.Client(
            transport=httpx2.HTTPTransport(uds=str(server.socket_path)),
            base_url="http://localhost",
            headers={"Authorization": f"Bearer {server.api_key}"},
            timeout=60,
        ) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def document(client: httpx2.Client) -> dict[str, Any]:
    answer = client.get("/openapi.json")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def check(document: dict[str, Any], schema: dict[str, Any], value: object) -> None:
    """References lead into the document, so the document is the schema's frame."""
    whole = {**schema, "components": document["components"]}
    jsonschema.Draft202012Validator.check_schema(whole)
    jsonschema.validate(value, whole, cls=jsonschema.Draft202012Validator)


def test_it_is_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema({**schema, "components": document["components"]})


@pytest.mark.parametrize(
    ("path", "method", "url", "body"), ASKED, ids=lambda it: it if isinstance(it, str) else ""
)
def test_bodies_and_answers_fit_their_schemas(
    client: httpx2.Client,
    document: dict[str, Any],
    path: str,
    method: str,
    url: str,
    body: dict[str, Any] | None,
) -> None:
    operation = document["paths"][path][method]
    if body is not None:
        content = operation["requestBody"]["content"]["application/json"]
        check(document, content["schema"], body)
    answer = client.request(method, url, json=body)
    assert answer.status_code == 200, answer.text
    check(document, operation["responses"]["200"]["content"]["application/json"]["schema"], answer.json())


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_every_event_of_a_stream_fits_its_schema(
    client: httpx2.Client, document: dict[str, Any], path: str
) -> None:
    asked = {"prompt": "a"} if path == "/v1/completions" else {"messages": MESSAGES, "tools": TOOLS}
    body = {**asked, "max_tokens": 8, "stream": True, "stream_options": {"include_usage": True}}
    content = document["paths"][path]["post"]["responses"]["200"]["content"]
    schema = content["text/event-stream"]["schema"]
    lines = client.post(path, json=body).text.splitlines()
    events = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    assert events.pop() == "[DONE]"
    for event in events:
        check(document, schema, json.loads(event))


def test_errors_fit_theirs(client: httpx2.Client, document: dict[str, Any]) -> None:
    for answer in (
        client.get("/props", headers={"Authorization": "Bearer wrong"}),
        client.post("/tokenize", json={}),
        client.get("/v1/models/other"),
    ):
        assert answer.status_code in {400, 401, 404}
        schema = document["paths"]["/props"]["get"]["responses"]["default"]["content"]["application/json"][
            "schema"
        ]
        check(document, schema, answer.json())
