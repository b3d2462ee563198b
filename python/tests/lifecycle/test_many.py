"""Many prompts in one call: order, bounds, failures, and what closing ends."""

from __future__ import annotations

import asyncio
import contextlib
import io
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import openai
import pytest

from mlxcel import (
    LLM,
    AsyncLLM,
    MlxcelBatchError,
    MlxcelConfigError,
    MlxcelConnectionError,
    MlxcelUnsupportedError,
    Result,
)
from mlxcel.testing import Exchange, FixtureServer
from support import eventually, eventually_async

if TYPE_CHECKING:
    from collections.abc import Callable

MODES = pytest.mark.parametrize("mode", ["sync", "async"])


class Echo:
    """Answers with the prompt, after pauses of several lengths, and not before so many came at once."""

    def __init__(self, slots: int | None = None, pause: float = 0.0, together: int = 0) -> None:
        self.slots = slots
        self.pause = pause
        self.together = together
        self.most = self.now = 0
        self.lock = threading.Lock()

    def __call__(self, exchange: Exchange) -> None:
        if exchange.path == "/props":
            if self.slots is None:
                exchange.json(404, {"error": {"message": "no such route"}})
            else:
                exchange.json(200, {"total_slots": self.slots})
            return
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        text = prompt_of(exchange)
        eventually(lambda: self.most >= self.together, 30)
        time.sleep(self.pause * (0.2 + hash(text) % 8))
        with self.lock:
            self.now -= 1
        if text == "bad":
            exchange.json(400, {"error": {"message": "a bad prompt"}})
        elif text == "forever":
            exchange.until_left()
        else:
            exchange.whole(f"{text} at {exchange.body.get('temperature')}")


def prompt_of(exchange: Exchange) -> str:
    body = exchange.body
    return str(body["messages"][-1]["content"] if "messages" in body else body["prompt"])


def asked(server: FixtureServer) -> int:
    """How many prompts have arrived."""
    return sum(bool(request.body) for request in server.requests)


def ask(mode: str, url: str, prompts: Any, *, method: str = "generate", **options: Any) -> Any:
    """What a call gives; of an iterator, all of it in a list."""
    if mode == "sync":
        with LLM(base_url=url) as llm:
            answer = getattr(llm, method)(prompts, **options)
            return list(answer) if isinstance(answer, Iterator) else answer

    async def use() -> Any:
        async with AsyncLLM(base_url=url) as llm:
            answer = await getattr(llm, method)(prompts, **options)
            return [result async for result in answer] if isinstance(answer, AsyncIterator) else answer

    return asyncio.run(use())


@MODES
@pytest.mark.parametrize("wrap", [list, iter])
def test_results_in_the_order_of_the_prompts(mode: str, wrap: Callable[[list[str]], Any]) -> None:
    prompts = [str(number) for number in range(60)]
    with FixtureServer(Echo(pause=0.001)) as server:
        results = ask(mode, server.base_url, wrap(prompts), temperature=0.5)
    assert results == [f"{prompt} at 0.5" for prompt in prompts]
    assert all(isinstance(result, Result) and result.usage is not None for result in results)


@MODES
def test_what_is_a_conversation_and_what_is_many(mode: str) -> None:
    one = [{"role": "user", "content": "a"}]
    with FixtureServer(Echo()) as server:
        assert ask(mode, server.base_url, one, method="chat") == "a at None"
        assert ask(mode, server.base_url, [one], method="chat") == ["a at None"]
        assert ask(mode, server.base_url, [one, "b"], method="chat") == ["a at None", "b at None"]
        assert ask(mode, server.base_url, iter([one, "b"]), method="chat") == ["a at None", "b at None"]
        assert ask(mode, server.base_url, [1, 2]) == "[1, 2] at None"
        assert ask(mode, server.base_url, [[1], [2, 3]]) == ["[1] at None", "[2, 3] at None"]
        before = len(server.requests)
        assert ask(mode, server.base_url, []) == []
        assert len(server.requests) == before


@MODES
def test_keywords_for_each(mode: str) -> None:
    own: list[dict[str, Any]] = [{"temperature": 0}, {}, {"temperature": 2, "top_k": 5}]
    with FixtureServer(Echo()) as server:
        expected = ["a at 0", "b at 1", "c at 2"]
        assert ask(mode, server.base_url, ["a", "b", "c"], sampling=own, temperature=1) == expected
        assert (
            ask(mode, server.base_url, iter(["a", "b", "c"]), sampling=iter(own), temperature=1) == expected
        )
        assert {request.body.get("top_k") for request in server.requests if request.body} == {None, 5}
        with pytest.raises(MlxcelConfigError, match="none for prompt 1"):
            ask(mode, server.base_url, iter(["a", "b"]), sampling=[{}])


@MODES
@pytest.mark.parametrize(("slots", "given", "most"), [(3, None, 12), (None, None, 16), (3, 2, 2), (2, 9, 9)])
def test_the_bound(mode: str, slots: int | None, given: int | None, most: int) -> None:
    """Four times the server's slots, sixteen where it does not tell, or what the caller says."""
    options: dict[str, Any] = {} if given is None else {"concurrency": given}
    for wrap in (list, iter):
        echo = Echo(slots, pause=0.01, together=most)
        with FixtureServer(echo) as server:
            ask(mode, server.base_url, wrap([str(number) for number in range(60)]), **options)
        assert echo.most == most


@MODES
def test_one_that_fails_does_not_lose_the_rest(mode: str) -> None:
    with FixtureServer(Echo(pause=0.001)) as server:
        with pytest.raises(
            MlxcelBatchError, match=r"prompt 1 failed; so did 1 more of 4.*a bad prompt"
        ) as caught:
            ask(mode, server.base_url, ["a", "bad", "c", "bad"])
        assert caught.value.index == 1
        assert isinstance(caught.value.__cause__, openai.BadRequestError)
        first, bad, third, _ = caught.value.results
        assert (first, third) == ("a at None", "c at None")
        assert bad is caught.value.__cause__

        results = ask(mode, server.base_url, ["a", "bad", "c"], return_exceptions=True)
        assert [type(result) for result in results] == [Result, openai.BadRequestError, Result]


@MODES
def test_a_lazy_run_and_one_that_fails(mode: str) -> None:
    with FixtureServer(Echo(pause=0.001)) as server:
        results = ask(mode, server.base_url, iter(["a", "bad", "c"]), return_exceptions=True)
        assert [type(result) for result in results] == [Result, openai.BadRequestError, Result]
        with pytest.raises(MlxcelBatchError, match=r"prompt 1 failed: .*a bad prompt") as caught:
            ask(mode, server.base_url, iter(["a", "bad", "c"]))
        assert caught.value.index == 1


@MODES
def test_nobody_there_is_found_out_once(mode: str) -> None:
    with FixtureServer(Echo()) as server:
        url = server.base_url
    with pytest.raises(MlxcelBatchError, match=r"were not asked any more.*no server answers") as caught:
        ask(mode, url, ["a"] * 500, concurrency=2)
    assert isinstance(caught.value.__cause__, MlxcelConnectionError)
    assert None in caught.value.results


@MODES
def test_a_prompt_of_a_wrong_type_is_named(mode: str) -> None:
    with (
        FixtureServer(Echo()) as server,
        pytest.raises(MlxcelBatchError, match=r"prompt 1 .*list of messages") as caught,
    ):
        ask(mode, server.base_url, ["a", 3, "c"], method="chat")
    assert isinstance(caught.value.__cause__, TypeError)
    assert caught.value.results[2] == "c at None"


def endless(read: list[int]) -> Iterator[str]:
    while True:
        read.append(1)
        yield "forever" if len(read) > 4 else "quick"


def test_an_iterator_is_read_a_little_ahead_and_closing_ends_what_runs() -> None:
    read: list[int] = []
    with FixtureServer(Echo()) as server, LLM(base_url=server.base_url) as llm:
        with llm.generate(endless(read), concurrency=3) as results:
            assert [next(results) for _ in range(4)] == ["quick at None"] * 4
            eventually(lambda: asked(server) == 7)
        for _ in range(3):
            assert server.left.acquire(timeout=10)
        assert len(read) <= 4 + 3 * 8
        assert list(results) == []
        assert llm.generate("after") == "after at None"


def test_dropping_an_iterator_ends_what_runs() -> None:
    with FixtureServer(Echo()) as server, LLM(base_url=server.base_url) as llm:
        for _ in llm.generate(endless([]), concurrency=2):
            break
        eventually(lambda: not [t for t in threading.enumerate() if t.name == "mlxcel-many"])


async def test_closing_an_async_iterator_cancels_what_runs() -> None:
    read: list[int] = []
    with FixtureServer(Echo()) as server:
        async with AsyncLLM(base_url=server.base_url) as llm:
            async with await llm.generate(endless(read), concurrency=3) as results:
                assert [await anext(results) for _ in range(4)] == ["quick at None"] * 4
                await eventually_async(lambda: asked(server) == 7)
            for _ in range(3):
                assert await asyncio.to_thread(server.left.acquire, timeout=10)
            assert len(read) <= 4 + 3 * 8
            assert await llm.generate("after") == "after at None"


async def test_cancelling_a_list_ends_what_runs() -> None:
    with FixtureServer(Echo()) as server:
        async with AsyncLLM(base_url=server.base_url) as llm:
            task = asyncio.create_task(llm.generate(["forever"] * 5, concurrency=3))
            await eventually_async(lambda: asked(server) == 3)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            for _ in range(3):
                assert await asyncio.to_thread(server.left.acquire, timeout=10)


async def test_a_slow_async_iterator_does_not_hold_results_back() -> None:
    async def prompts() -> AsyncIterator[str]:
        yield "first"
        await asyncio.sleep(60)
        yield "never"

    with FixtureServer(Echo()) as server:
        async with AsyncLLM(base_url=server.base_url) as llm, await llm.generate(prompts()) as results:
            assert await asyncio.wait_for(anext(results), 10) == "first at None"


@MODES
def test_an_iterator_that_fails_is_the_caller_s_error(mode: str) -> None:
    def prompts() -> Iterator[str]:
        yield "a"
        raise ZeroDivisionError

    with FixtureServer(Echo()) as server, pytest.raises(ZeroDivisionError):
        ask(mode, server.base_url, prompts())


def test_an_async_iterator_wants_the_async_client() -> None:
    async def prompts() -> AsyncIterator[str]:
        yield "a"

    given: Any = prompts()
    with (
        FixtureServer(Echo()) as server,
        LLM(base_url=server.base_url) as llm,
        pytest.raises(TypeError, match="AsyncLLM takes async ones"),
    ):
        llm.generate(given)


def test_lists_under_trio() -> None:
    import trio

    with FixtureServer(Echo()) as server:

        async def use() -> None:
            async with AsyncLLM(base_url=server.base_url) as llm:
                assert await llm.generate(["a", "b"]) == ["a at None", "b at None"]
                with pytest.raises(MlxcelUnsupportedError, match="under trio give lists"):
                    async for _ in await llm.generate(iter(["a"])):
                        pass

        trio.run(use)


@MODES
def test_the_bar(mode: str) -> None:
    prompts = [str(number) for number in range(30)]
    with FixtureServer(Echo(pause=0.03)) as server, contextlib.redirect_stderr(io.StringIO()) as shown:
        ask(mode, server.base_url, [*prompts, "bad"], concurrency=2, progress=True, return_exceptions=True)
        told = shown.getvalue()
        ask(mode, server.base_url, prompts, progress=False)
        ask(mode, server.base_url, prompts)  # nobody watches
    assert "31/31" in told
    assert "tok/s" in told
    assert "1 failed" in told
    assert shown.getvalue() == told
