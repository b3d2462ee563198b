"""What really goes over the wire: nothing from the environment, the key where it belongs, no retries."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx2
import openai
import pytest

from mlxcel import (
    LLM,
    AsyncLLM,
    MlxcelResponseError,
    MlxcelStateError,
    MlxcelUnsupportedError,
    Timeout,
)

Answer = Callable[[httpx2.Request], httpx2.Response]

SDK_ENVIRONMENT = {
    "OPENAI_API_KEY": "leak-key",
    "OPENAI_ADMIN_KEY": "leak-admin",
    "OPENAI_ORG_ID": "leak-org",
    "OPENAI_ORGANIZATION": "leak-organization",
    "OPENAI_PROJECT_ID": "leak-project",
    "OPENAI_BASE_URL": "http://leak-url.example",
    "OPENAI_CUSTOM_HEADERS": "X-Leak: leak-custom\nAuthorization: Bearer leak-authorization",
    "OPENAI_WEBHOOK_SECRET": "leak-webhook",
    "HTTP_PROXY": "http://leak-proxy.example:1",
    "ALL_PROXY": "http://leak-proxy.example:1",
}

PLATFORM = {"x-stainless-os", "x-stainless-arch", "x-stainless-runtime", "x-stainless-runtime-version"}


@pytest.fixture(autouse=True)
def hostile_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SDK_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


class Wire:
    """A server that writes down every request and answers like a small one."""

    def __init__(self) -> None:
        self.requests: list[httpx2.Request] = []
        self.failing: Callable[[httpx2.Request], httpx2.Response] | None = None

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        if self.failing is not None:
            return self.failing(request)
        path = request.url.path
        body = json.loads(request.content) if request.content else {}
        if path == "/v1/models":
            return httpx2.Response(200, json={"data": [{"id": "m"}, {"id": "n"}]})
        if path == "/tokenize":
            return httpx2.Response(200, json={"tokens": [1, 2]})
        if path == "/detokenize":
            return httpx2.Response(200, json={"content": "ab"})
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
        if body.get("stream"):
            piece = {"delta": {"content": "x"}} if "messages" in body else {"text": "x"}
            chunk = {"choices": [{**choice, **piece}]}
            content = f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n".encode()
            return httpx2.Response(200, content=content, headers={"content-type": "text/event-stream"})
        text = "{}" if "response_format" in body else "x"
        message = {"role": "assistant", "content": text}
        return httpx2.Response(200, json={"choices": [{**choice, "text": text, "message": message}]})

    def sent(self) -> str:
        return "\n".join(
            f"{request.method} {request.url} {list(request.headers.items())} {request.content.decode()}"
            for request in self.requests
        )


@pytest.fixture
def wire() -> Wire:
    return Wire()


def use_everything(llm: LLM) -> None:
    assert llm.model == "m"
    assert llm.generate("p", top_k=1) == "x"
    assert llm.chat("p", model="n") == "x"
    assert llm.stream("p").result() == "x"
    assert llm.chat_stream("p").result() == "x"
    assert llm.tokenize("ab", add_special=True) == [1, 2]
    assert llm.detokenize([1, 2]) == "ab"
    assert [model.id for model in llm.models()] == ["m", "n"]
    llm.openai_client.with_options(timeout=5).models.list()
    llm.openai_client.copy().chat.completions.create(model="m", messages=[])


async def use_everything_async(llm: AsyncLLM) -> None:
    assert await llm.generate("p", top_k=1) == "x"
    assert llm.model == "m"
    assert await llm.chat("p", model="n") == "x"
    assert await llm.stream("p").result() == "x"
    assert await llm.chat_stream("p").result() == "x"
    assert await llm.tokenize("ab", add_special=True) == [1, 2]
    assert await llm.detokenize([1, 2]) == "ab"
    assert [model.id for model in await llm.models()] == ["m", "n"]
    await llm.openai_client.with_options(timeout=5).models.list()
    await llm.openai_client.copy().chat.completions.create(model="m", messages=[])


def test_nothing_of_the_environment_is_sent(wire: Wire) -> None:
    with LLM(transport=httpx2.MockTransport(wire)) as llm:
        use_everything(llm)
    assert len(wire.requests) == 10
    assert "leak" not in wire.sent()
    assert all("authorization" not in request.headers for request in wire.requests)
    assert PLATFORM.isdisjoint(name for request in wire.requests for name in request.headers)


async def test_nothing_of_the_environment_is_sent_async(wire: Wire) -> None:
    async with AsyncLLM(transport=httpx2.MockTransport(wire)) as llm:
        await use_everything_async(llm)
    assert len(wire.requests) == 10
    assert "leak" not in wire.sent()
    assert all("authorization" not in request.headers for request in wire.requests)
    assert PLATFORM.isdisjoint(name for request in wire.requests for name in request.headers)


def test_the_key_goes_with_every_request(wire: Wire) -> None:
    with LLM(transport=httpx2.MockTransport(wire), api_key="mine") as llm:
        use_everything(llm)
        assert "mine" not in repr(llm)
    assert {request.headers["authorization"] for request in wire.requests} == {"Bearer mine"}
    assert "leak" not in wire.sent()


async def test_the_key_goes_with_every_request_async(wire: Wire) -> None:
    async with AsyncLLM(transport=httpx2.MockTransport(wire), api_key="mine") as llm:
        await use_everything_async(llm)
    assert {request.headers["authorization"] for request in wire.requests} == {"Bearer mine"}
    assert "leak" not in wire.sent()


def test_a_ready_made_client_keeps_its_own_authorization(wire: Wire) -> None:
    with httpx2.Client(
        transport=httpx2.MockTransport(wire), headers={"Authorization": "Bearer theirs"}, trust_env=False
    ) as http_client:
        LLM(http_client=http_client).chat("p")
    assert {request.headers["authorization"] for request in wire.requests} == {"Bearer theirs"}


def test_what_a_caller_gives_the_sdk_client_is_kept(wire: Wire) -> None:
    with LLM(transport=httpx2.MockTransport(wire)) as llm:
        named = llm.openai_client.with_options(organization="own-org", default_headers={"X-Own": "1"})
        named.models.list()
    assert wire.requests[-1].headers["openai-organization"] == "own-org"
    assert wire.requests[-1].headers["x-own"] == "1"
    assert "leak" not in wire.sent()


def test_bodies(wire: Wire) -> None:
    with LLM(transport=httpx2.MockTransport(wire)) as llm:
        form = {"type": "json_object"}
        llm.generate("p", temperature=0, top_k=5, response_format=form, seed=1)
        llm.chat([{"role": "user", "content": "q"}], response_format=form, extra_body={"seed": 2}, seed=1)
        llm.tokenize("ab")
        llm.detokenize((1, 2))
    bodies = [json.loads(request.content) for request in wire.requests if request.content]
    assert bodies == [
        {"model": "m", "prompt": "p", "temperature": 0, "top_k": 5, "response_format": form, "seed": 1},
        {"model": "m", "messages": [{"role": "user", "content": "q"}], "response_format": form, "seed": 2},
        {"content": "ab", "add_special": False},
        {"tokens": [1, 2]},
    ]


def test_native_routes_lie_beside_v1(wire: Wire) -> None:
    with LLM(base_url="http://h:7/v1", transport=httpx2.MockTransport(wire)) as llm:
        llm.tokenize("ab")
        llm.chat("p", model="m")
    assert [str(request.url) for request in wire.requests] == [
        "http://h:7/tokenize",
        "http://h:7/v1/models",
        "http://h:7/v1/chat/completions",
    ]


def test_the_model_is_asked_for_once(wire: Wire) -> None:
    with LLM(transport=httpx2.MockTransport(wire)) as llm:
        for _ in range(3):
            llm.chat("p")
    assert [request.url.path for request in wire.requests].count("/v1/models") == 1


@pytest.mark.parametrize("status", [400, 401, 404, 409, 422, 429, 500, 503])
def test_errors_are_openai_s_and_nothing_is_retried(wire: Wire, status: int) -> None:
    def fail(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(status, json={"error": {"message": "because"}}, headers={"retry-after": "0"})

    wire.failing = fail
    with LLM(transport=httpx2.MockTransport(wire)) as llm:
        for call in (llm.generate, llm.chat, llm.stream, llm.chat_stream):
            with pytest.raises(openai.APIStatusError, match="because") as caught:
                call("p", model="m")
            assert caught.value.status_code == status
        with pytest.raises(MlxcelUnsupportedError if status == 404 else openai.APIStatusError):
            llm.tokenize("p")
        with pytest.raises(openai.APIStatusError):
            llm.models()
    generations = [request for request in wire.requests if request.method == "POST"]
    assert len(generations) == 5


async def test_a_timeout_is_not_retried(wire: Wire) -> None:
    def hang(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ReadTimeout("too long", request=request)

    wire.failing = hang
    with LLM(transport=httpx2.MockTransport(wire)) as llm, pytest.raises(openai.APITimeoutError):
        llm.chat("p", model="m")
    async with AsyncLLM(transport=httpx2.MockTransport(wire)) as other:
        with pytest.raises(openai.APITimeoutError):
            await other.chat("p", model="m")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, {"connect": 10.0, "read": None, "write": None, "pool": None}),
        (5.0, {"connect": 5.0, "read": 5.0, "write": 5.0, "pool": 5.0}),
        (60, {"connect": 10.0, "read": 60, "write": 60, "pool": 60}),
        (
            Timeout(connect=1, first_token=30, between_tokens=2),
            {"connect": 1, "read": 30, "write": 30, "pool": None},
        ),
        (
            Timeout(connect=None, first_token=30, between_tokens=2, total=20),
            {"connect": None, "read": 20, "write": 20, "pool": 20},
        ),
        (Timeout(between_tokens=2), {"connect": 10.0, "read": None, "write": None, "pool": None}),
    ],
)
def test_a_transport_of_the_caller_s_gets_limits_too(
    wire: Wire, given: Any, expected: dict[str, float | None]
) -> None:
    with LLM(transport=httpx2.MockTransport(wire), timeout=given) as llm:
        llm.chat("p", model="m")
        llm.chat("p", model="m", timeout=1.5)
        llm.chat("p", model="m", timeout=None)
    *_, first, second, third = (request.extensions["timeout"] for request in wire.requests)
    assert first == expected
    assert second["read"] == 1.5
    assert third["read"] is None


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ("<html>", "text/html"),
        ("<html>", "application/json"),
        ("", "application/json"),
        ("[]", "application/json"),
    ],
)
async def test_a_server_that_does_not_speak_the_api(wire: Wire, body: str, content_type: str) -> None:
    wire.failing = lambda _: httpx2.Response(200, content=body, headers={"content-type": content_type})
    with LLM(transport=httpx2.MockTransport(wire)) as llm:
        calls: list[Callable[[], object]] = [
            lambda: llm.chat("p", model="m"),
            lambda: llm.generate("p", model="m"),
            lambda: llm.tokenize("p"),
            lambda: llm.stream("p", model="m").result(),
            llm.models,
            lambda: llm.model,
        ]
        for call in calls:
            with pytest.raises(MlxcelResponseError):
                call()
    async with AsyncLLM(transport=httpx2.MockTransport(wire)) as other:
        for waiting in (other.chat("p", model="m"), other.models(), other.tokenize("p")):
            with pytest.raises(MlxcelResponseError):
                await waiting


def test_a_stream_of_garbage(wire: Wire) -> None:
    wire.failing = lambda _: httpx2.Response(
        200, content="data: {broken\n\n", headers={"content-type": "text/event-stream"}
    )
    with LLM(transport=httpx2.MockTransport(wire)) as llm, pytest.raises(MlxcelResponseError):
        llm.stream("p", model="m").result()


async def test_a_closed_client_says_so(wire: Wire) -> None:
    llm = LLM(transport=httpx2.MockTransport(wire))
    llm.close()
    llm.close()
    for use in (lambda: llm.chat("p"), lambda: llm.model, lambda: llm.openai_client, lambda: llm.__enter__()):
        with pytest.raises(MlxcelStateError, match="closed"):
            use()
    other = AsyncLLM(transport=httpx2.MockTransport(wire))
    await other.close()
    await other.close()
    with pytest.raises(MlxcelStateError, match="closed"):
        await other.chat("p")
    assert not wire.requests


def test_the_async_model_is_known_after_ready(wire: Wire) -> None:
    with pytest.raises(MlxcelStateError, match=r"await llm\.ready\(\)"):
        _ = AsyncLLM(transport=httpx2.MockTransport(wire)).model


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "params",
    [
        {"temperature": 0, "max_tokens": 3, "stop": ["a"], "logit_bias": {"1": 2}, "seed": 1},
        {"top_k": 4, "extra_body": {"n": 2}, "extra_headers": {"X-Own": "1"}, "extra_query": {"q": "a b"}},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"x-own": [1, None]}}}]},
    ],
)
def test_what_the_sdk_s_own_create_would_send(wire: Wire, params: dict[str, Any], stream: bool) -> None:
    """We send it past the SDK, which must change nothing."""
    messages: Any = [{"role": "user", "content": [{"type": "text", "text": "p"}]}]
    with LLM(base_url="http://h/v1", transport=httpx2.MockTransport(wire), api_key="k") as llm:
        client = llm.openai_client
        own = {name: value for name, value in params.items() if name != "top_k"}
        if "top_k" in params:
            own["extra_body"] = {"top_k": 4, **params["extra_body"]}
        if stream:
            own |= {"stream": True, "stream_options": {"include_usage": True}}
        for method in ("chat", "completions"):
            if method == "completions" and "tools" in params:
                continue
            wire.requests.clear()
            if method == "chat":
                client.chat.completions.create(model="m", messages=messages, **own)
                llm.chat_stream(messages, model="m", **params) if stream else llm.chat(
                    messages, model="m", **params
                )
            else:
                client.completions.create(model="m", prompt="p", **own)
                llm.stream("p", model="m", **params) if stream else llm.generate("p", model="m", **params)
            theirs, ours = (request for request in wire.requests if request.method == "POST")
            assert json.loads(ours.content) == json.loads(theirs.content)
            assert ours.url == theirs.url
            assert dict(ours.headers) == without_retries(theirs)


def without_retries(request: httpx2.Request) -> dict[str, str]:
    """Headers but those in which the SDK tells of its retries and timeouts: ours retries nothing."""
    told = ("x-stainless-retry-count", "x-stainless-read-timeout")
    return {name: value for name, value in request.headers.items() if name not in told}
