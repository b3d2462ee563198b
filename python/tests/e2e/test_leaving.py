"""Whoever stops waiting frees the server: its busy slots are back to none, with the real binary.

The aim is 200 ms; the tests wait up to ten times that.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import trio
import uvloop
from jupyter_client.manager import start_new_kernel

from mlxcel import LLM, AsyncLLM, ManagedServer, MlxcelTimeoutError, Timeout
from support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.e2e

SECONDS = 2.0


@pytest.fixture(scope="module")
def server(real_binary: Path) -> Iterator[ManagedServer]:
    with ManagedServer("mlxcel-tiny", binary=real_binary) as running:
        yield running


@pytest.fixture
def where(server: ManagedServer) -> dict[str, Any]:
    return {"socket": server.socket_path, "api_key": server.api_key}


@pytest.fixture
def busy(server: ManagedServer) -> Iterator[Callable[[], int]]:
    """How many slots the server is working in; none when a test ends."""
    with LLM(socket=server.socket_path, api_key=server.api_key) as observer:

        def slots() -> int:
            props: Any = observer.openai_client.get("http://localhost/props", cast_to=object)
            return int(props["busy_slots"]) + int(props["queued_requests"])

        yield slots
        eventually(lambda: slots() == 0, SECONDS)


@pytest.fixture(scope="module")
def endless(server: ManagedServer) -> dict[str, Any]:
    """Sampling with which the model never comes to an end by itself."""
    with LLM(socket=server.socket_path, api_key=server.api_key) as llm:
        ends = {
            token: -100
            for text in ("<|im_end|>", "<|endoftext|>")
            if len(tokens := llm.tokenize(text)) == 1
            for token in tokens
        }
    assert ends
    return {
        "max_tokens": 7000,
        "temperature": 1.0,
        "seed": 1,
        "logit_bias": {str(t): b for t, b in ends.items()},
    }


def leave_by_break(llm: LLM, options: dict[str, Any]) -> None:
    for _ in llm.stream("Once", **options):
        break


def leave_by_close(llm: LLM, options: dict[str, Any]) -> None:
    stream = llm.chat_stream("Once", **options)
    next(stream)
    stream.close()


def leave_by_exception(llm: LLM, options: dict[str, Any]) -> None:
    with contextlib.suppress(ZeroDivisionError), llm.stream("Once", **options) as stream:
        for _ in stream:
            raise ZeroDivisionError


def leave_by_dropping(llm: LLM, options: dict[str, Any]) -> None:
    stream = llm.stream("Once", **options)
    next(stream)
    del stream


def leave_in_a_cycle(llm: LLM, options: dict[str, Any]) -> None:
    stream = llm.stream("Once", **options)
    next(stream)
    holder: dict[str, Any] = {"stream": stream}
    holder["self"] = holder
    del stream, holder
    gc.collect()


def leave_unread(llm: LLM, options: dict[str, Any]) -> None:
    llm.stream("Once", **options)


def leave_by_timeout(llm: LLM, options: dict[str, Any]) -> None:
    for call in (llm.generate, llm.chat, lambda *a, **k: llm.stream(*a, **k).result()):
        with pytest.raises(MlxcelTimeoutError):
            call("Once", timeout=0.3, **options)


def leave_by_timeout_of_a_limit(llm: LLM, options: dict[str, Any]) -> None:
    for total in (0.5, 2, 8):  # however long a busy machine takes to begin
        with pytest.raises(MlxcelTimeoutError) as caught:
            llm.generate("Once", timeout=Timeout(between_tokens=60, total=total), **options)
        if caught.value.text:
            return
    raise AssertionError("none of the text is on the error")


@pytest.mark.parametrize(
    "leave",
    [
        leave_by_break,
        leave_by_close,
        leave_by_exception,
        leave_by_dropping,
        leave_in_a_cycle,
        leave_unread,
        leave_by_timeout,
        leave_by_timeout_of_a_limit,
    ],
)
def test_leaving(
    where: dict[str, Any], busy: Callable[[], int], endless: dict[str, Any], leave: Callable[..., None]
) -> None:
    with LLM(**where) as llm:
        leave(llm, endless)
        eventually(lambda: busy() == 0, SECONDS)


async def drop(stream: Any) -> None:
    await anext(stream)


async def leave_async_break(llm: AsyncLLM, options: dict[str, Any]) -> None:
    async for _ in llm.stream("Once", **options):
        break


async def leave_async_with(llm: AsyncLLM, options: dict[str, Any]) -> None:
    async with llm.chat_stream("Once", **options) as stream:
        await anext(stream)


async def leave_async_dropping(llm: AsyncLLM, options: dict[str, Any]) -> None:
    stream = llm.stream("Once", **options)
    await anext(stream)
    del stream


async def leave_async_never_started(llm: AsyncLLM, options: dict[str, Any]) -> None:
    llm.stream("Once", **options)


async def leave_async_cycle(llm: AsyncLLM, options: dict[str, Any]) -> None:
    stream = llm.stream("Once", **options)
    await anext(stream)
    holder: dict[str, Any] = {"stream": stream}
    holder["self"] = holder
    del stream, holder
    # The collector may run in any thread.
    thread = threading.Thread(target=gc.collect)
    thread.start()
    thread.join()


async def leave_async_timeout(llm: AsyncLLM, options: dict[str, Any]) -> None:
    for call in (llm.generate, llm.chat, lambda *a, **k: llm.stream(*a, **k).result()):
        with pytest.raises(MlxcelTimeoutError):
            await call("Once", timeout=0.3, **options)


EVERYWHERE = [
    leave_async_break,
    leave_async_with,
    leave_async_dropping,
    leave_async_never_started,
    leave_async_cycle,
    leave_async_timeout,
]


async def leave_by_cancelling(llm: AsyncLLM, options: dict[str, Any]) -> None:
    for coroutine in (llm.chat("Once", **options), llm.stream("Once", **options).result()):
        task = asyncio.create_task(coroutine)
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def leave_by_wait_for(llm: AsyncLLM, options: dict[str, Any]) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(llm.generate("Once", **options), 0.3)


async def leave_by_task_group(llm: AsyncLLM, options: dict[str, Any]) -> None:
    async def fail() -> None:
        await asyncio.sleep(0.3)
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(llm.chat("Once", **options))
            group.create_task(llm.stream("Once", **options).result())
            group.create_task(fail())


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("leave", [*EVERYWHERE, leave_by_cancelling, leave_by_wait_for, leave_by_task_group])
def test_leaving_async(
    where: dict[str, Any],
    busy: Callable[[], int],
    endless: dict[str, Any],
    loop: str,
    leave: Callable[..., Any],
) -> None:
    async def use() -> None:
        async with AsyncLLM(**where) as llm:
            await leave(llm, endless)
            deadline = time.monotonic() + SECONDS
            while await asyncio.to_thread(busy):
                assert time.monotonic() < deadline
                await asyncio.sleep(0.01)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop if loop == "uvloop" else None) as runner:
        runner.run(use())


# trio warns of the SDK's own generators, which nobody can close.
@pytest.mark.filterwarnings("ignore:Async generator 'openai", "ignore:Async generator 'httpx2")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("leave", EVERYWHERE)
def test_leaving_under_trio(
    where: dict[str, Any], busy: Callable[[], int], endless: dict[str, Any], leave: Callable[..., Any]
) -> None:
    async def use() -> None:
        async with AsyncLLM(**where) as llm:
            await leave(llm, endless)
            with trio.fail_after(SECONDS):
                while await trio.to_thread.run_sync(busy):
                    await trio.sleep(0.01)

    trio.run(use)


def test_cancelling_under_trio(
    where: dict[str, Any], busy: Callable[[], int], endless: dict[str, Any]
) -> None:
    async def use() -> None:
        async with AsyncLLM(**where) as llm:
            with trio.move_on_after(0.3) as scope:
                await llm.chat("Once", **endless)
            assert scope.cancelled_caught
            with trio.fail_after(SECONDS):
                while await trio.to_thread.run_sync(busy):
                    await trio.sleep(0.01)

    trio.run(use)


INTERRUPTED = """
import json, sys
from mlxcel import LLM
where, method, prompt, options = json.loads(sys.argv[1])
llm = LLM(**where)
# pydantic builds the SDK's types at their first use, and tells a Ctrl-C in it as a SchemaError.
answer = getattr(llm, method)("Once", max_tokens=1)
if "stream" in method:
    answer.result()
print("asking", flush=True)
try:
    answer = getattr(llm, method)(prompt, **options)
    if "stream" in method:
        answer.result()
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("method", "prompt", "requests"),
    [("chat", "Once", 1), ("generate", "Once", 1), ("chat_stream", "Once", 1), ("chat", ["Once"] * 3, 3)],
)
def test_ctrl_c(
    where: dict[str, Any],
    busy: Callable[[], int],
    endless: dict[str, Any],
    method: str,
    prompt: Any,
    requests: int,
) -> None:
    """The process lives on afterwards, so it is not its end that frees the server."""
    arguments = json.dumps([where, method, prompt, endless])
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "asking\n"
        eventually(lambda: busy() == requests)
        os.kill(process.pid, signal.SIGINT)
        assert process.stdout.readline() == "interrupted\n"
        eventually(lambda: busy() == 0, SECONDS)
        process.stdin.close()
        assert process.wait(10) == 0


@contextlib.contextmanager
def notebook(where: dict[str, Any]) -> Iterator[Any]:
    """A kernel with both clients at hand."""
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        code = f"from mlxcel import *; llm, other = LLM(**{where!r}), AsyncLLM(**{where!r})"
        assert client.execute_interactive(code, timeout=60)["content"]["status"] == "ok"
        yield manager, client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()


@pytest.mark.parametrize(
    "cell",
    [
        "llm.chat(['Once'] * 20, **options)",
        "for _ in llm.generate(iter(['Once'] * 20), **options): pass",
    ],
)
def test_interrupting_many_prompts_in_one_of_two_notebooks(
    where: dict[str, Any], busy: Callable[[], int], endless: dict[str, Any], cell: str
) -> None:
    with notebook(where) as (manager, client), notebook(where) as (_, neighbour):
        client.execute(f"options = {endless!r}\n{cell}")
        eventually(lambda: busy() >= 20)
        neighbour.execute("answers = llm.chat(['What is 17 + 25?'] * 20)")  # waits for a slot
        eventually(lambda: busy() > 20)
        manager.interrupt_kernel()
        eventually(lambda: busy() <= 20, SECONDS)
        assert client.get_shell_msg(timeout=60)["content"]["status"] == "error"
        assert neighbour.get_shell_msg(timeout=60)["content"]["status"] == "ok"
        eventually(lambda: busy() == 0, SECONDS)
        again = "assert llm.chat('What is 17 + 25?') == await other.chat('What is 17 + 25?')"
        for kernel, code in ((client, again), (neighbour, f"{again}; assert '42' in answers[19]")):
            assert kernel.execute_interactive(code, timeout=60)["content"]["status"] == "ok"
