"""A full queue is the one refusal that is waited out, and only within the limits."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import openai
import pytest

from mlxcel import LLM, AsyncLLM, MlxcelTimeoutError, Timeout
from mlxcel.testing import Exchange, FixtureServer

MODES = pytest.mark.parametrize("mode", ["sync", "async"])
METHODS = pytest.mark.parametrize("method", ["chat", "generate", "stream"])


class Refusing:
    """Refuses so many times, then answers."""

    def __init__(
        self,
        times: int,
        headers: dict[str, str],
        *,
        status: int = 503,
        code: str | None = "queue_full",
    ) -> None:
        self.times = times
        self.status = status
        self.code = code
        self.headers = headers

    def __call__(self, exchange: Exchange) -> None:
        if self.times > 0:
            self.times -= 1
            error = {"message": "the queue is full", "type": "unavailable", "code": self.code}
            exchange.json(self.status, {"error": error}, **self.headers)
        elif exchange.body.get("stream"):
            exchange.begin()
            exchange.piece("done")
            exchange.end()
        else:
            exchange.whole("done")


def ask(mode: str, method: str, url: str, **options: Any) -> Any:
    if mode == "sync":
        with LLM(base_url=url) as llm:
            answer = getattr(llm, method)("p", **options)
            return answer.result() if method == "stream" else answer

    async def use() -> Any:
        async with AsyncLLM(base_url=url) as llm:
            answer = getattr(llm, method)("p", **options)
            return await (answer.result() if method == "stream" else answer)

    return asyncio.run(use())


@MODES
@METHODS
def test_it_is_waited_out(mode: str, method: str) -> None:
    with FixtureServer(Refusing(2, {"Retry_After": "0.3"})) as server:
        began = time.monotonic()
        assert ask(mode, method, server.base_url, timeout=30) == "done"
        assert time.monotonic() - began >= 0.6
        assert len(server.requests) == 3


@MODES
@pytest.mark.parametrize(
    "headers", [{}, {"Retry_After": "Sat, 21 Nov 2026 13:00:00 GMT"}, {"Retry_After": "-1"}]
)
def test_without_a_usable_pause(mode: str, headers: dict[str, str]) -> None:
    with FixtureServer(Refusing(1, headers)) as server:
        assert ask(mode, "chat", server.base_url) == "done"


@MODES
@METHODS
@pytest.mark.parametrize(
    ("limits", "named"),
    [(Timeout(total=1.0), "total"), (Timeout(first_token=1.0), "first_token"), (1.0, "total")],
)
def test_only_within_the_limits(mode: str, method: str, limits: Any, named: str) -> None:
    with FixtureServer(Refusing(1000, {"Retry_After": "0.3"})) as server:
        began = time.monotonic()
        with pytest.raises(MlxcelTimeoutError, match=r"\b1 s\b") as caught:
            ask(mode, method, server.base_url, timeout=limits)
        assert 0.5 < time.monotonic() - began < 30
        assert caught.value.limit == named
        assert 1 <= len(server.requests) <= 4


def test_a_pause_for_which_there_is_no_time_is_not_begun() -> None:
    with FixtureServer(Refusing(1000, {"Retry_After": "30"})) as server:
        began = time.monotonic()
        with pytest.raises(MlxcelTimeoutError, match="asks to wait 30 s") as caught:
            ask("sync", "chat", server.base_url, timeout=5)
        assert isinstance(caught.value.__cause__, openai.APIStatusError)
        assert time.monotonic() - began < 5, "no part of it is waited"


@MODES
@pytest.mark.parametrize(
    ("status", "code"), [(503, "shutting_down"), (503, None), (429, "queue_full"), (500, "queue_full")]
)
def test_nothing_else_is(mode: str, status: int, code: str | None) -> None:
    with FixtureServer(Refusing(1, {"Retry_After": "0"}, status=status, code=code)) as server:
        with pytest.raises(openai.APIStatusError) as caught:
            ask(mode, "chat", server.base_url)
        assert caught.value.status_code == status
        assert caught.value.response.headers["retry-after"] == "0"
        assert len(server.requests) == 1
