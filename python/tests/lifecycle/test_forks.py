"""A client in a forked child has connections of its own and lets go of its parent's."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from mlxcel import LLM, AsyncLLM
from mlxcel.testing import Exchange, FixtureServer
from support import alive, eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def in_a_fork(work: Callable[[], object]) -> None:
    """Run something in a forked child; what it raises fails the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # there are threads: that is the point
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.parametrize("where", [{}, {"host": "127.0.0.1"}], ids=["uds", "tcp"])
def test_a_managed_client_in_both(fake_binary: Path, where: dict[str, Any]) -> None:
    with LLM("tiny", binary=fake_binary, **where) as llm:
        assert llm.chat("before") == "echo: before"

        def work() -> None:
            for i in range(3):
                assert llm.chat(f"child {i}") == f"echo: child {i}"
                assert llm.stream("x").result() == "0 1 2 "
            llm.close()

        in_a_fork(work)
        assert llm.server is not None
        assert llm.server.pid is not None
        assert alive(llm.server.pid)
        assert llm.chat("after") == "echo: after"


def test_both_at_once(fake_binary: Path) -> None:
    """The same kept-alive connection in both would mix their answers up."""
    with LLM("tiny", binary=fake_binary) as llm:
        llm.chat("warm")
        context = multiprocessing.get_context("fork")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            queue: Any = context.SimpleQueue()

            def work(name: str) -> None:
                queue.put(all(llm.chat(f"{name}{i}") == f"echo: {name}{i}" for i in range(50)))

            children = [context.Process(target=work, args=(name,)) for name in "ab"]
            for child in children:
                child.start()
        assert all(llm.chat(f"parent{i}") == f"echo: parent{i}" for i in range(50))
        for child in children:
            child.join()
            assert queue.get()


def test_an_async_client_in_both(fake_binary: Path) -> None:
    llm = AsyncLLM("tiny", binary=fake_binary)
    assert asyncio.run(llm.chat("before")) == "echo: before"

    def work() -> None:
        assert asyncio.run(llm.chat("child")) == "echo: child"

    in_a_fork(work)
    assert asyncio.run(llm.chat("after")) == "echo: after"
    asyncio.run(llm.close())


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_child_keeps_no_copy_of_a_connection(mode: str) -> None:
    """With a copy in the child, closing it in the parent would not reach the server."""

    def script(exchange: Exchange) -> None:
        exchange.begin()
        exchange.piece("x")
        exchange.until_left()

    read_end, write_end = os.pipe()

    def fork() -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            os.close(write_end)
            os.read(read_end, 1)  # until the parent is done
            os._exit(0)
        return pid

    with FixtureServer(script) as server:
        if mode == "sync":
            with LLM(base_url=server.base_url) as llm:
                stream = llm.stream("p")
                next(stream)
                child = fork()
                stream.close()
                gone = server.left.acquire(timeout=30)
        else:

            async def use() -> tuple[int, bool]:
                async with AsyncLLM(base_url=server.base_url) as llm:
                    stream = llm.stream("p")
                    await anext(stream)
                    child = fork()
                    await stream.close()
                    return child, await asyncio.to_thread(server.left.acquire, timeout=30)

            child, gone = asyncio.run(use())
    os.close(write_end)
    os.close(read_end)
    os.waitpid(child, 0)
    assert gone


def test_the_parent_s_stream_survives_the_child_s_end(fake_binary: Path) -> None:
    with LLM("tiny", binary=fake_binary) as llm, llm.stream("forever") as stream:
        next(stream)

        def work() -> None:
            stream.close()
            llm.close()

        in_a_fork(work)
        for _ in range(20):
            next(stream)
    eventually(lambda: llm.server is not None and llm.server.poll() is not None)
