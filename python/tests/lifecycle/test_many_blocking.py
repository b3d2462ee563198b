"""Many prompts of the blocking client: what happens in whose thread, and in which loop."""

from __future__ import annotations

import asyncio
import contextvars
import subprocess
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from mlxcel import LLM, MlxcelBatchError, MlxcelStateError
from mlxcel._crew import in_order
from mlxcel._loop_thread import NAME, LoopThread, run
from mlxcel.testing import Exchange, FixtureServer
from support import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

PROMPTS = [str(number) for number in range(40)]
ANSWERS = [f"{prompt}!" for prompt in PROMPTS]


def echo(exchange: Exchange) -> None:
    if exchange.path == "/props":
        exchange.json(200, {"total_slots": 2})
    elif exchange.body["prompt"] == "forever":
        exchange.until_left()
    else:
        exchange.whole(f"{exchange.body['prompt']}!")


def threads_left() -> bool:
    return any(thread.name == NAME for thread in threading.enumerate())


def told(where: list[Any]) -> Iterator[str]:
    for prompt in PROMPTS:
        where.append(threading.get_ident())
        yield prompt


def test_prompts_are_read_in_the_thread_that_asks_for_results() -> None:
    where: list[int] = []
    with FixtureServer(echo) as server, LLM(base_url=server.base_url) as llm:
        assert list(llm.generate(told(where))) == ANSWERS
    assert set(where) == {threading.get_ident()}
    eventually(lambda: not threads_left())


async def test_beside_a_running_loop() -> None:
    with FixtureServer(echo) as server, LLM(base_url=server.base_url) as llm:
        assert llm.generate(PROMPTS) == ANSWERS
        assert list(llm.generate(iter(PROMPTS))) == ANSWERS


@pytest.mark.parametrize("given", ["transport", "http_client"])
def test_through_what_the_caller_gave_which_only_blocks(given: str) -> None:
    with FixtureServer(echo) as server, httpx2.HTTPTransport() as transport:
        seen: set[str] = set()

        class Noting(httpx2.BaseTransport):
            def handle_request(self, request: httpx2.Request) -> httpx2.Response:
                seen.add(request.url.path)
                return transport.handle_request(request)

        options: dict[str, Any] = {"base_url": server.base_url, "transport": Noting()}
        if given == "http_client":
            options = {"http_client": httpx2.Client(base_url=server.base_url, transport=Noting())}
        with LLM(**options) as llm:
            assert llm.generate(PROMPTS) == ANSWERS
            assert list(llm.generate(iter(PROMPTS), concurrency=3)) == ANSWERS
    assert "/v1/completions" in seen


def test_closing_the_client_ends_a_list() -> None:
    first = threading.Event()

    def answer(exchange: Exchange) -> None:
        echo(exchange)
        first.set()

    caught: list[MlxcelBatchError] = []
    with FixtureServer(answer) as server:
        llm = LLM(base_url=server.base_url)

        def ask() -> None:
            try:
                llm.generate([*PROMPTS, *["forever"] * 10**5], timeout=1, concurrency=2)
            except MlxcelBatchError as error:
                caught.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        assert first.wait(30)
        llm.close()
        thread.join(60)
    assert any(isinstance(outcome, MlxcelStateError) for outcome in caught[0].results)
    assert caught[0].results[-1] is None


def test_a_forked_child_has_lists_of_its_own() -> None:
    script = """
import os, sys
from mlxcel import LLM
llm = LLM(base_url=sys.argv[1])
assert llm.generate(["a"] * 20) == ["a!"] * 20
with llm.generate(iter(["a"] * 20)) as results:
    next(results)
    if (pid := os.fork()) == 0:
        assert llm.generate(["b"] * 20) == ["b!"] * 20
        del results
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert list(results) == ["a!"] * 19
"""
    with FixtureServer(echo) as server:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", script, server.base_url],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_daemon_thread_does_not_hold_up_the_end_of_the_interpreter() -> None:
    script = """
import sys, threading, time
from mlxcel import LLM
llm = LLM(base_url=sys.argv[1])
threading.Thread(target=llm.generate, args=(["forever"] * 4,), daemon=True).start()
while len([t for t in threading.enumerate() if t.name == sys.argv[2]]) < 1:
    time.sleep(0.01)
time.sleep(0.2)
"""
    with FixtureServer(echo) as server:
        done = subprocess.run(
            [sys.executable, "-c", script, server.base_url, NAME],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_crew_loses_no_job() -> None:
    """Each worker may end just as the next job comes."""

    async def at_once(job: int) -> int:
        return job

    async def after_a_turn(job: int) -> int:
        await asyncio.sleep(0)
        return job

    for work in (at_once, after_a_turn):
        for size in (1, 3):
            assert list(in_order(work, iter(range(2000)), size)) == list(range(2000))


def test_what_is_no_exception_reaches_the_caller() -> None:
    async def cancelled(_job: int) -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        list(in_order(cancelled, iter([1]), 1))


def test_a_loop_thread_has_the_caller_s_context_and_is_closed_twice() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("mine")

    async def seen() -> str:
        return variable.get()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run(seen) == "mine"
        thread = LoopThread()
        thread.close()
        thread.close()
    assert not threads_left()
