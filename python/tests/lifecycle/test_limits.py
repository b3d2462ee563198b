"""Every limit of a call holds against every way a server can keep one waiting, blocking and async."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import httpx2
import openai
import pytest

from mlxcel import LLM, AsyncLLM, MlxcelConfigError, MlxcelTimeoutError, Timeout
from mlxcel.testing import Exchange, FixtureServer
from support import deaf_address

if TYPE_CHECKING:
    from pathlib import Path

MODES = pytest.mark.parametrize("mode", ["sync", "async"])
METHODS = pytest.mark.parametrize("method", ["chat", "generate", "chat_stream", "stream"])

Call = Callable[..., Any]

ENOUGH = 0.8
"""Seconds in which a client on a busy machine has sent its request."""


def call(mode: str, method: str, where: dict[str, Any], **options: Any) -> Any:
    """One call of a method on a new client; a stream is read to its end."""
    if mode == "sync":
        with LLM(**where) as llm:
            answer = getattr(llm, method)("p", **options)
            return answer.result() if "stream" in method else answer

    async def ask() -> Any:
        async with AsyncLLM(**where) as llm:
            answer = getattr(llm, method)("p", **options)
            return await (answer.result() if "stream" in method else answer)

    return asyncio.run(ask())


def times_out(limit: str, seconds: float, function: Call, *arguments: Any, **options: Any) -> Any:
    """The call fails by that limit, not before it, and not for ever later."""
    began = time.monotonic()
    with pytest.raises(MlxcelTimeoutError, match=f"{seconds:g} s .*{limit}") as caught:
        function(*arguments, **options)
    assert seconds * 0.9 <= time.monotonic() - began < seconds + 20
    error = caught.value
    assert error.limit == limit
    assert isinstance(error, TimeoutError)
    assert isinstance(error, openai.APITimeoutError)
    return error


def stall_before_headers(exchange: Exchange) -> None:
    exchange.until_left()


def stall_before_body(exchange: Exchange) -> None:
    exchange.begin("text/event-stream" if exchange.body.get("stream") else "application/json")
    exchange.until_left()


def trickle(exchange: Exchange) -> None:
    """Never silent for long, never done."""
    streamed = exchange.body.get("stream")
    exchange.begin("text/event-stream" if streamed else "application/json")
    exchange.until_left(b": still here\n\n" if streamed else b" ")


def endless(exchange: Exchange) -> None:
    exchange.begin()
    while True:
        exchange.piece("x ")
        time.sleep(0.01)


@MODES
@METHODS
@pytest.mark.parametrize("stall", [stall_before_headers, stall_before_body, trickle])
def test_the_total(mode: str, method: str, stall: Call) -> None:
    with FixtureServer(stall) as server:
        times_out("total", ENOUGH, call, mode, method, {"base_url": server.base_url}, timeout=ENOUGH)
        assert server.left.acquire(timeout=30), "the connection is closed, so the server stops"
        assert len(server.requests) == 1, "and nothing is sent again"


@MODES
@METHODS
def test_the_total_of_an_answer_that_never_ends(mode: str, method: str) -> None:
    """`chat` and `generate` stream underneath here, because of the other limit."""
    limits = Timeout(first_token=30, total=2)
    with FixtureServer(endless) as server:
        error = times_out("total", 2, call, mode, method, {"base_url": server.base_url, "timeout": limits})
        assert error.text.startswith("x x ")
        assert server.left.acquire(timeout=30)


@MODES
@METHODS
@pytest.mark.parametrize("stall", [stall_before_headers, stall_before_body, trickle])
def test_the_first_token(mode: str, method: str, stall: Call) -> None:
    limits = Timeout(first_token=ENOUGH, total=30)
    with FixtureServer(stall) as server:
        times_out("first_token", ENOUGH, call, mode, method, {"base_url": server.base_url, "timeout": limits})
        assert server.left.acquire(timeout=30)
        assert len(server.requests) == 1


@MODES
@METHODS
def test_a_frame_without_text_is_no_token(mode: str, method: str) -> None:
    def script(exchange: Exchange) -> None:
        exchange.begin()
        exchange.piece(None)
        exchange.until_left()

    with FixtureServer(script) as server:
        limits = Timeout(first_token=0.3)
        times_out("first_token", 0.3, call, mode, method, {"base_url": server.base_url}, timeout=limits)


@MODES
@METHODS
def test_between_tokens(mode: str, method: str) -> None:
    def script(exchange: Exchange) -> None:
        exchange.begin()
        time.sleep(1.2)  # longer than the limit, which does not hold yet
        exchange.piece("one ")
        exchange.piece("two")
        exchange.until_left(b": still here\n\n")

    with FixtureServer(script) as server:
        limits = Timeout(between_tokens=1)
        began = time.monotonic()
        with pytest.raises(MlxcelTimeoutError, match=r"stood still for 1 s") as caught:
            call(mode, method, {"base_url": server.base_url}, timeout=limits)
        assert 2 < time.monotonic() - began < 30
        assert (caught.value.limit, caught.value.text) == ("between_tokens", "one two")
        assert server.left.acquire(timeout=30)


@MODES
@METHODS
def test_limits_that_are_kept(mode: str, method: str) -> None:
    def script(exchange: Exchange) -> None:
        exchange.begin()
        for text in ("one ", "two ", "three"):
            exchange.piece(text)
            time.sleep(0.05)
        exchange.end()

    limits = Timeout(connect=5, first_token=5, between_tokens=5, total=30)
    with FixtureServer(script) as server:
        assert call(mode, method, {"base_url": server.base_url, "timeout": limits}) == "one two three"


@MODES
def test_a_tool_call_is_the_same_when_it_is_streamed(mode: str) -> None:
    calls = [("a", "add", '{"x": 1, "y": 2}'), ("b", "noop", "{}")]

    def script(exchange: Exchange) -> None:
        if not exchange.body.get("stream"):
            whole = [
                {"id": i, "type": "function", "function": {"name": name, "arguments": arguments}}
                for i, name, arguments in calls
            ]
            message = {"role": "assistant", "content": None, "tool_calls": whole}
            exchange.json(200, {"choices": [{"index": 0, "finish_reason": "tool_calls", "message": message}]})
            return
        exchange.begin()
        for index, (i, name, arguments) in enumerate(calls):
            exchange.delta({"tool_calls": [{"index": index, "id": i, "function": {"name": name}}]})
            for letter in arguments:
                exchange.delta({"tool_calls": [{"index": index, "function": {"arguments": letter}}]})
        exchange.delta({}, finish="tool_calls")
        exchange.chunk(b"data: [DONE]\n\n")
        exchange.chunk(b"")

    def facts(answer: Any) -> Any:
        return [
            (
                str(answer),
                answer.finish_reason,
                call.id,
                call.name,
                call.raw,
            )
            for call in answer.tool_calls
        ]

    with FixtureServer(script) as server:
        whole = call(mode, "chat", {"base_url": server.base_url})
        streamed = call(mode, "chat", {"base_url": server.base_url}, timeout=Timeout(first_token=30))
        assert facts(streamed) == facts(whole)
        assert [fact[2:] for fact in facts(whole)] == [(i, n, a) for i, n, a in calls]


@MODES
def test_connecting(mode: str) -> None:
    url, sockets = deaf_address()
    for timeout, limit in ((Timeout(connect=0.3), "connect"), (0.3, "total")):
        with pytest.raises(MlxcelTimeoutError) as caught:
            call(mode, "chat", {"base_url": url}, model="m", timeout=timeout)
        # A whole of 0.3 s also cuts the time to connect: either may be named.
        assert caught.value.limit in (limit, "connect")
    for held in sockets:
        held.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # anyio forgets its socket
@MODES
def test_connecting_to_a_socket_with_a_full_queue(mode: str, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(path)
        listener.listen(0)
        for _ in range(4):
            probe = stack.enter_context(socket.socket(socket.AF_UNIX))
            probe.setblocking(False)
            probe.connect_ex(path)
        limits = Timeout(connect=0.3)
        times_out("connect", 0.3, call, mode, "chat", {"socket": path}, model="m", timeout=limits)


@MODES
@METHODS
@pytest.mark.parametrize("where", [{}, {"host": "127.0.0.1"}], ids=["uds", "tcp"])
def test_a_stopped_server(fake_binary: Path, mode: str, method: str, where: dict[str, Any]) -> None:
    """Connections are still accepted by the kernel, and nothing ever comes back."""
    with LLM("tiny", binary=fake_binary, **where) as owner:
        server = owner.server
        assert server is not None
        assert server.pid is not None
        reach = {"base_url": server.base_url} if where else {"socket": server.socket_path}
        reach["api_key"] = server.api_key
        os.kill(server.pid, signal.SIGSTOP)
        try:
            options = {"model": "tiny", "timeout": 0.3}
            times_out("total", 0.3, call, mode, method, reach, **options)
            if mode == "sync":
                use = getattr(owner, method)
                times_out("total", 0.3, lambda: use("x" * 5_000_000, timeout=0.3))
        finally:
            os.kill(server.pid, signal.SIGCONT)


@MODES
def test_every_call_has_limits(mode: str) -> None:
    with FixtureServer(stall_before_headers, models=None) as server:
        for method, arguments in (("models", ()), ("tokenize", ("a",)), ("detokenize", ([1],))):

            def use(method: str = method, arguments: tuple[Any, ...] = arguments) -> None:
                if mode == "sync":
                    with LLM(base_url=server.base_url) as llm:
                        getattr(llm, method)(*arguments, timeout=0.2)
                    return

                async def ask() -> None:
                    async with AsyncLLM(base_url=server.base_url) as llm:
                        await getattr(llm, method)(*arguments, timeout=0.2)

                asyncio.run(ask())

            times_out("total", 0.2, use)


@MODES
def test_a_slow_reader_is_not_a_slow_server(mode: str) -> None:
    def script(exchange: Exchange) -> None:
        exchange.begin()
        exchange.piece("one ")
        exchange.piece("two")
        exchange.end()

    limits = Timeout(first_token=1, between_tokens=1)
    with FixtureServer(script) as server:
        if mode == "sync":
            with LLM(base_url=server.base_url, timeout=limits) as llm, llm.stream("p") as stream:
                time.sleep(1.2)
                for _ in stream:
                    time.sleep(1.2)
                assert stream.result() == "one two"
            return

        async def read() -> None:
            async with AsyncLLM(base_url=server.base_url, timeout=limits) as llm, llm.stream("p") as stream:
                await asyncio.sleep(1.2)
                async for _ in stream:
                    await asyncio.sleep(1.2)
                assert await stream.result() == "one two"

        asyncio.run(read())


@MODES
def test_a_transport_of_the_caller_s_keeps_limits(mode: str) -> None:
    """Its sockets are not ours: silence is cut by its own timeouts, and talk at each piece."""
    for script, limit in ((stall_before_headers, 0.3), (endless, 0.4)):
        with FixtureServer(script) as server:
            options = {"timeout": Timeout(total=limit, first_token=limit + 1, between_tokens=limit + 1)}
            if mode == "sync":
                client: Any = httpx2.Client(base_url=server.base_url, trust_env=False)
                times_out("total", limit, call, mode, "stream", {"http_client": client}, **options)
                client.close()
            else:

                async def use(url: str = server.base_url, options: dict[str, Any] = options) -> None:
                    async with httpx2.AsyncClient(base_url=url, trust_env=False) as client:
                        await AsyncLLM(http_client=client).stream("p", **options).result()

                times_out("total", limit, lambda use=use: asyncio.run(use()))
            assert server.left.acquire(timeout=30)


@pytest.mark.parametrize("wrong", [httpx2.Timeout(5), "5", True, 0, -1, float("nan"), float("inf")])
def test_what_is_no_limit(wrong: Any) -> None:
    for make in (LLM, AsyncLLM):
        with pytest.raises(MlxcelConfigError, match="number of seconds"):
            make(base_url="http://h", timeout=wrong)
    with LLM(base_url="http://h") as llm, pytest.raises(MlxcelConfigError, match="number of seconds"):
        llm.chat("p", timeout=wrong)
    with pytest.raises(MlxcelConfigError, match=r"Timeout\(first_token=…\)"):
        Timeout(first_token=wrong)
