"""Each route method asks what the list of endpoints says, with the client's key, and reads the reply."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from mlxcel import LLM, AsyncLLM, MlxcelResponseError, MlxcelUnsupportedError

ENDPOINTS = tomllib.loads((Path(__file__).parents[1] / "endpoints.toml").read_text())
COVERED = {
    name: route
    for route, names in ENDPOINTS["covered"].items()
    for name in ([names] if isinstance(names, str) else names)
}
BESIDE = {"generate", "stream", "chat", "chat_stream", "run_tools"}  # tested everywhere else
RESPONSE = {"id": "r", "object": "response", "output": [], "model": "m", "created_at": 1}
CALLS: dict[str, tuple[tuple[Any, ...], dict[str, Any], Any]] = {
    "health": ((), {}, {"status": "ok"}),
    "version": ((), {}, {"version": "1"}),
    "openapi": ((), {}, {"paths": {}}),
    "props": ((), {}, {"n_ctx": 1}),
    "slots": ((), {}, [{"id": 0}]),
    "metrics": ((), {}, "a 1\n"),
    "tokenize": (("x",), {}, {"tokens": [1]}),
    "detokenize": (([1],), {}, {"content": "x"}),
    "apply_template": (("x",), {"add_generation_prompt": False}, {"prompt": "p"}),
    "models": ((), {}, {"data": [{"id": "m"}]}),
    "retrieve_model": (("owner/m",), {}, {"id": "owner/m"}),
    "responses": (("x",), {"temperature": 0, "extra_body": {"own": 1}}, RESPONSE),
    "response_input_tokens": (("x",), {}, {"input_tokens": 3}),
    "retrieve_response": (("a/b",), {}, RESPONSE),
    "delete_response": (("r",), {}, {"deleted": True}),
    "response_input_items": (("r",), {"limit": 1, "order": "asc"}, {"data": []}),
    "cancel_response": (("r",), {}, RESPONSE),
    "messages": (("x",), {"max_tokens": 3, "system": "Be brief."}, {"content": []}),
    "count_message_tokens": (("x",), {}, {"input_tokens": 3}),
}
EVENTS: list[dict[str, Any]] = [
    {"type": "response.created", "response": RESPONSE, "sequence_number": 0},
    {"type": "ping"},
]
STREAMS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "responses_stream": (("x",), {}),
    "messages_stream": (("x",), {"max_tokens": 3}),
}


class Server:
    """Gives one reply to everything but the question for the models, and remembers what was asked."""

    def __init__(self, reply: Any, status: int = 200) -> None:
        self.reply = reply
        self.status = status
        self.asked: list[httpx2.Request] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/api/v1/models" and self.status == 200:
            self.asked.append(request)
            return httpx2.Response(200, json={"data": [{"id": "m"}]})
        self.asked.append(request)
        if isinstance(self.reply, str):
            kind = "text/event-stream" if self.reply.startswith("event") else "text/plain"
            return httpx2.Response(self.status, text=self.reply, headers={"content-type": kind})
        return httpx2.Response(self.status, json=self.reply)


def call(kind: type[LLM | AsyncLLM], server: Server, name: str, *args: Any, **options: Any) -> Any:
    where: dict[str, Any] = {
        "base_url": "http://host/api/v1",
        "api_key": "secret",
        "transport": httpx2.MockTransport(server),
    }
    if kind is LLM:
        with LLM(**where) as llm:
            got = getattr(llm, name)(*args, **options)
            return list(got) if name in STREAMS else got

    async def main() -> Any:
        async with AsyncLLM(**where) as llm:
            got = getattr(llm, name)(*args, **options)
            return [event async for event in got] if name in STREAMS else await got

    return asyncio.run(main())


@pytest.fixture(params=[LLM, AsyncLLM])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


def check(server: Server, route: str) -> dict[str, Any]:
    request = server.asked[-1]
    method, path = route.split()
    pattern = "/api" + re.sub(r"\\\{\w+\\\}", ".+", re.escape(path))
    assert request.method == method
    assert re.fullmatch(pattern, request.url.path), request.url.path
    assert request.headers["authorization"] == "Bearer secret"
    return dict(json.loads(request.content)) if request.content else {}


def test_all_methods_are_tried_here() -> None:
    assert {*CALLS, *STREAMS, *BESIDE} == COVERED.keys()
    for name in COVERED:
        assert inspect.isfunction(getattr(LLM, name))


@pytest.mark.parametrize("name", CALLS)
def test_a_method_asks_its_route(kind: Any, name: str) -> None:
    args, options, reply = CALLS[name]
    server = Server(reply)
    got = call(kind, server, name, *args, **options)
    body = check(server, COVERED[name])
    if name in ("responses", "messages", "response_input_tokens", "count_message_tokens"):
        assert body["model"] == "m"
    if name == "responses":
        assert (body["input"], body["temperature"], body["own"]) == ("x", 0, 1)
        assert got.output_text == ""
    if name == "messages":
        assert body["messages"] == [{"role": "user", "content": "x"}]
        assert (body["system"], body["max_tokens"]) == ("Be brief.", 3)
    if name == "response_input_items":
        assert dict(server.asked[-1].url.params) == {"limit": "1", "order": "asc"}
    if name == "retrieve_response":
        assert server.asked[-1].url.raw_path.endswith(b"/a%2Fb"), "an id is one part of the path"
    assert got == reply or name not in ("health", "version", "openapi", "props", "slots", "metrics")


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_gives_the_events(kind: Any, name: str) -> None:
    args, options = STREAMS[name]
    server = Server("".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in EVENTS))
    got = call(kind, server, name, *args, **options)
    body = check(server, COVERED[name])
    assert body["stream"] is True
    kinds = [event["type"] if isinstance(event, dict) else event.type for event in got]
    assert kinds == ["response.created", "ping"]


@pytest.mark.parametrize("name", [*CALLS, *STREAMS])
def test_errors_are_those_of_everything_else(kind: Any, name: str) -> None:
    args, options = STREAMS[name] if name in STREAMS else CALLS[name][:2]
    server = Server({"error": {"message": "no", "type": "auth"}}, 401)
    with pytest.raises(openai.AuthenticationError):
        call(kind, server, name, *args, **options)


@pytest.mark.parametrize("name", ["props", "slots", "metrics", "apply_template", "tokenize"])
def test_another_server_lacks_what_is_ours(kind: Any, name: str) -> None:
    args, options, _ = CALLS[name]
    with pytest.raises(MlxcelUnsupportedError, match="native route"):
        call(kind, Server({}, 404), name, *args, **options)


@pytest.mark.parametrize("name", ["health", "slots", "apply_template", "response_input_tokens", "messages"])
def test_replies_of_another_form(kind: Any, name: str) -> None:
    args, options, _ = CALLS[name]
    with pytest.raises(MlxcelResponseError):
        call(kind, Server(3), name, *args, **options)


def test_no_stream_where_one_was_asked_for(kind: Any) -> None:
    with pytest.raises(MlxcelResponseError, match="a stream was asked for"):
        call(kind, Server({}), "responses_stream", "x")


def test_what_has_a_place_of_its_own_is_no_parameter(kind: Any) -> None:
    with pytest.raises(TypeError, match="stream is not a parameter"):
        call(kind, Server({}), "responses", "x", stream=True)
