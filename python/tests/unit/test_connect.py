"""Connecting to servers of others: keys, headers, certificates, models, and what they lack."""

from __future__ import annotations

import http.server
import json
import logging
import ssl
import threading
from typing import TYPE_CHECKING, Any

import httpx2
import openai
import pytest
import trustme

from mlxcel import (
    LLM,
    AsyncLLM,
    MlxcelConfigError,
    MlxcelConnectionError,
    MlxcelModelNotServedError,
    MlxcelResponseError,
    MlxcelUnsupportedError,
    Timeout,
)
from mlxcel.testing import Exchange, FixtureServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def authorization(**options: Any) -> str | None:
    """The header that a request of such a client carries."""
    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200, json={"data": []})

    make = options.pop("make", None)
    transport = httpx2.MockTransport(answer)
    if make is not None:
        options["http_client"] = make(transport)
    else:
        options["transport"] = transport
    with LLM(**options) as llm:
        llm.models()
    return seen[0].headers.get("authorization")


def test_the_key_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert authorization() is None
    monkeypatch.setenv("MLXCEL_API_KEY", "from-outside")
    assert authorization() == "Bearer from-outside"
    assert authorization(api_key="given") == "Bearer given"
    own = {"Authorization": "Bearer own"}
    assert authorization(make=lambda t: httpx2.Client(transport=t, headers=own)) == "Bearer own"
    assert authorization(make=lambda t: httpx2.Client(transport=t)) == "Bearer from-outside"
    monkeypatch.setenv("MLXCEL_API_KEY", "")
    assert authorization() is None
    monkeypatch.setenv("MLXCEL_API_KEY", "secret\n")
    with pytest.raises(MlxcelConfigError, match="MLXCEL_API_KEY is printable ASCII") as caught:
        authorization()
    assert "secret" not in str(caught.value)


def test_extra_headers() -> None:
    with FixtureServer(lambda exchange: exchange.whole("x")) as server:
        with LLM(
            base_url=server.base_url, api_key="k", extra_headers={"X-Team": "a", "X-Both": "client"}
        ) as llm:
            llm.chat("p", extra_headers={"X-Both": "call"})
        sent = server.requests[-1].headers
        assert (sent["X-Team"], sent["X-Both"], sent["Authorization"]) == ("a", "call", "Bearer k")


def test_options_of_a_connection_only() -> None:
    for options in ({"extra_headers": {"a": "b"}}, {"verify": False}):
        with pytest.raises(MlxcelConfigError, match="is for one that runs"):
            LLM("m", **options)
    with pytest.raises(MlxcelConfigError, match="about certificates"):
        LLM(base_url="http://h", verify=False)
    with pytest.raises(MlxcelConfigError, match="on your transport"):
        LLM(
            base_url="https://h", transport=httpx2.MockTransport(lambda _: httpx2.Response(200)), verify=False
        )
    with pytest.raises(MlxcelConfigError, match="no file or folder of certificates"):
        LLM(base_url="https://h", verify="/nothing/here.pem")


class _Secure(http.server.BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        pass

    def do_GET(self) -> None:
        body = json.dumps({"data": [{"id": "over-tls"}]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class _Quiet(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # clients that do not trust us hang up


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[trustme.CA, Path]:
    authority = trustme.CA()
    folder = tmp_path_factory.mktemp("ca")
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    return authority, folder / "ca.pem"


@pytest.fixture(scope="module")
def secure(authority: tuple[trustme.CA, Path]) -> Iterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority[0].issue_cert("127.0.0.1").configure_cert(context)
    server = _Quiet(("127.0.0.1", 0), _Secure)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"https://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()
    server.server_close()
    thread.join()


async def test_certificates(authority: tuple[trustme.CA, Path], secure: str) -> None:
    context = ssl.create_default_context(cafile=str(authority[1]))
    for trust in (str(authority[1]), authority[1], context, False):
        with LLM(base_url=secure, verify=trust, timeout=Timeout(total=30)) as llm:
            assert llm.model == "over-tls"
        async with AsyncLLM(base_url=secure, verify=trust, timeout=Timeout(total=30)) as other:
            await other.ready()
            assert other.model == "over-tls"


async def test_a_stranger_s_certificate(secure: str) -> None:
    with (
        LLM(base_url=secure) as llm,
        pytest.raises(MlxcelConnectionError, match=r"verify='/path/to/ca\.pem'"),
    ):
        llm.models()
    async with AsyncLLM(base_url=secure) as other:
        with pytest.raises(MlxcelConnectionError, match=r"verify='/path/to/ca\.pem'"):
            await other.models()


async def test_a_model_that_is_not_served() -> None:
    with FixtureServer(lambda exchange: exchange.whole("x"), models=("a", "b")) as server:
        with LLM(base_url=server.base_url) as llm:
            for call in (llm.chat, llm.generate, llm.stream, llm.chat_stream):
                with pytest.raises(MlxcelModelNotServedError, match="'c'; it serves 'a', 'b'") as caught:
                    call("p", model="c")
                assert caught.value.served == ("a", "b")
            assert not server.requests, "nothing was sent"
            assert llm.chat("p", model="b") == "x"
            assert llm.chat("p", extra_body={"model": "c"}) == "x"
            assert [request.body["model"] for request in server.requests] == ["b", "c"]
            server.models = ("a", "c")  # the server has changed meanwhile
            assert llm.chat("p", model="c") == "x"
        async with AsyncLLM(base_url=server.base_url) as other:
            with pytest.raises(MlxcelModelNotServedError, match="it serves 'a', 'c'"):
                await other.chat("p", model="b")
            with pytest.raises(MlxcelModelNotServedError, match="it serves 'a', 'c'"):
                await other.stream("p", model="b").result()


@pytest.mark.parametrize("models", [None, ()])
async def test_a_server_that_keeps_no_list(models: tuple[str, ...] | None) -> None:
    def script(exchange: Exchange) -> None:
        if exchange.path == "/v1/models":
            exchange.json(404, {"error": {"message": "no such route"}})
        else:
            exchange.whole("x")

    with FixtureServer(script, models=models) as server:
        with LLM(base_url=server.base_url) as llm:
            assert llm.chat("p", model="any") == "x"
            if models is None:
                with pytest.raises(openai.NotFoundError):
                    _ = llm.models()
            else:
                with pytest.raises(MlxcelResponseError, match="name one with model="):
                    llm.chat("p")
        async with AsyncLLM(base_url=server.base_url) as other:
            assert await other.chat("p", model="any") == "x"


@pytest.mark.parametrize("status", [404, 405, 501])
async def test_native_routes_that_are_missing(status: int) -> None:
    def script(exchange: Exchange) -> None:
        exchange.raw(status, b"<html>no</html>", "text/html")

    with FixtureServer(script) as server:
        with LLM(base_url=server.base_url) as llm:
            with pytest.raises(MlxcelUnsupportedError, match="has no /tokenize") as caught:
                llm.tokenize("a")
            assert isinstance(caught.value, NotImplementedError)
            with pytest.raises(MlxcelUnsupportedError, match="has no /detokenize"):
                llm.detokenize([1])
        async with AsyncLLM(base_url=server.base_url) as other:
            with pytest.raises(MlxcelUnsupportedError, match="has no /tokenize"):
                await other.tokenize("a")


def html(exchange: Exchange) -> None:
    exchange.raw(200, b"<html>Welcome</html>", "text/html")


def html_as_json(exchange: Exchange) -> None:
    exchange.raw(200, b"<html>Welcome</html>", "application/json")


def no_choices(exchange: Exchange) -> None:
    if exchange.body.get("stream"):
        exchange.begin()
        exchange.chunk(b'data: {"id": "1"}\n\ndata: [DONE]\n\n')
        exchange.chunk(b"")
    else:
        exchange.json(200, {"id": "1"})


def no_message(exchange: Exchange) -> None:
    if exchange.body.get("stream"):
        exchange.begin()
        exchange.chunk(b'data: {"choices": [{"index": 0}]}\n\ndata: [DONE]\n\n')
        exchange.chunk(b"")
    else:
        exchange.json(200, {"choices": [{"index": 0, "finish_reason": "stop"}]})


def empty(exchange: Exchange) -> None:
    exchange.raw(200, b"", "application/json")


def whole_instead_of_stream(exchange: Exchange) -> None:
    if not exchange.body.get("stream"):
        exchange.json(200, [])
    else:
        exchange.whole("x")


@pytest.mark.parametrize(
    "script", [html, html_as_json, no_choices, no_message, empty, whole_instead_of_stream]
)
async def test_replies_that_are_none(script: Callable[[Exchange], None]) -> None:
    with FixtureServer(script) as server:
        with LLM(base_url=server.base_url) as llm:
            for call in (llm.generate, llm.chat):
                with pytest.raises(MlxcelResponseError):
                    call("p")
            for open_stream in (llm.stream, llm.chat_stream):
                with pytest.raises(MlxcelResponseError):
                    open_stream("p").result()
        async with AsyncLLM(base_url=server.base_url) as other:
            with pytest.raises(MlxcelResponseError):
                await other.chat("p")
            with pytest.raises(MlxcelResponseError):
                await other.stream("p").result()


def ends_politely(exchange: Exchange) -> None:
    exchange.begin()
    exchange.piece("half ")
    exchange.chunk(b"")


def ends_with_done(exchange: Exchange) -> None:
    exchange.begin()
    exchange.piece("half ")
    exchange.chunk(b"data: [DONE]\n\n")
    exchange.chunk(b"")


def breaks_off(exchange: Exchange) -> None:
    exchange.begin()
    exchange.piece("half ")
    exchange.close_connection = True


def breaks_off_a_whole_reply(exchange: Exchange) -> None:
    if exchange.body.get("stream"):
        breaks_off(exchange)
        return
    exchange.send_response(200)
    exchange.send_header("Content-Type", "application/json")
    exchange.send_header("Content-Length", "1000")
    exchange.end_headers()
    exchange.wfile.write(b'{"choices": [')
    exchange.close_connection = True


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (ends_politely, MlxcelResponseError),
        (ends_with_done, MlxcelResponseError),
        (breaks_off, MlxcelConnectionError),
    ],
)
async def test_streams_that_end_early(script: Callable[[Exchange], None], error: type[Any]) -> None:
    with FixtureServer(script) as server:
        with LLM(base_url=server.base_url) as llm:
            with pytest.raises(error) as caught:
                llm.chat_stream("p").result()
            assert caught.value.text == "half "
            with pytest.raises(error) as caught:  # streamed underneath
                llm.generate("p", timeout=Timeout(first_token=30))
            assert caught.value.text == "half "
        async with AsyncLLM(base_url=server.base_url) as other:
            with pytest.raises(error) as caught:
                await other.chat_stream("p").result()
            assert caught.value.text == "half "


async def test_a_whole_reply_that_breaks_off() -> None:
    with FixtureServer(breaks_off_a_whole_reply) as server:
        with LLM(base_url=server.base_url) as llm, pytest.raises(MlxcelConnectionError, match="broke"):
            llm.chat("p")
        async with AsyncLLM(base_url=server.base_url) as other:
            with pytest.raises(MlxcelConnectionError, match="broke"):
                await other.chat("p")
        assert len(server.requests) == 2, "never sent again"


@pytest.mark.parametrize("make", [LLM, AsyncLLM])
async def test_address_and_limits_are_logged_once(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    with FixtureServer(lambda exchange: exchange.whole("x")) as server, caplog.at_level("DEBUG", "mlxcel"):
        secrets = {"api_key": "very-secret", "extra_headers": {"X-Token": "also-secret"}}
        llm = make(base_url=server.base_url, timeout=Timeout(connect=3, total=77), **secrets)
        for _ in range(2):
            answer = llm.chat("p")
            assert (await answer if make is AsyncLLM else answer) == "x"
        closing = llm.close()
        if make is AsyncLLM:
            await closing
    told = [record for record in caplog.records if server.base_url in record.getMessage()]
    assert len(told) == 1
    assert told[0].levelno == logging.DEBUG
    assert "connect 3 s, total 77 s" in told[0].getMessage()
    assert "secret" not in caplog.text
