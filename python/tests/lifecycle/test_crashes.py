"""What a caller sees when the server dies: the request under way fails, the others go to the next one."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import openai
import pytest

from mlxcel import (
    LLM,
    AsyncLLM,
    MlxcelServerCrashedError,
    MlxcelStateError,
    MlxcelTimeoutError,
    Restart,
    ServerState,
    Timeout,
)
from support import eventually, records

if TYPE_CHECKING:
    from pathlib import Path

QUICK = Restart(limit=3, window=30, stable=0.2, backoff=0.1)
MODES = pytest.mark.parametrize("mode", ["sync", "async"])


def kill(llm: LLM | AsyncLLM) -> None:
    assert llm.server is not None
    assert llm.server.pid is not None
    os.kill(llm.server.pid, signal.SIGKILL)


def kill_when_asked(llm: LLM | AsyncLLM, record: Path, requests: int = 1) -> None:
    """End the server as soon as so many requests have arrived there."""

    def watch() -> None:
        eventually(lambda: len(records(record)) >= requests, 60)
        kill(llm)

    threading.Thread(target=watch).start()


def says_how(error: MlxcelServerCrashedError, *, restarting: bool) -> None:
    assert "SIGKILL" in str(error)
    assert isinstance(error, ConnectionError)
    assert error.exit_code == -signal.SIGKILL
    assert error.restarting == restarting


@pytest.mark.parametrize("restart", [QUICK, None])
@pytest.mark.parametrize("method", ["chat", "generate", "chat_stream"])
def test_a_request_under_way(fake_binary: Path, tmp_path: Path, method: str, restart: Restart | None) -> None:
    record = tmp_path / "record"
    flags = ["--fake-record", str(record)]
    with LLM("tiny", binary=fake_binary, restart=restart, extra_args=flags) as llm:
        began = time.monotonic()
        if "stream" in method:
            stream: Any = getattr(llm, method)("forever")
            next(stream)
            kill(llm)
        else:
            kill_when_asked(llm, record)
        with pytest.raises(MlxcelServerCrashedError) as caught:
            stream.result() if "stream" in method else getattr(llm, method)("slow")
        assert time.monotonic() - began < 30, "at once, not when an answer was due"
        says_how(caught.value, restarting=restart is not None)
        assert bool(caught.value.text) == ("stream" in method)
        if restart is not None:
            assert llm.chat("again") == "echo: again"


@pytest.mark.parametrize("restart", [QUICK, None])
@pytest.mark.parametrize("method", ["chat", "generate", "chat_stream"])
async def test_a_request_under_way_async(
    fake_binary: Path, tmp_path: Path, method: str, restart: Restart | None
) -> None:
    record = tmp_path / "record"
    flags = ["--fake-record", str(record)]
    async with AsyncLLM("tiny", binary=fake_binary, restart=restart, extra_args=flags) as llm:
        if "stream" in method:
            stream: Any = getattr(llm, method)("forever")
            await anext(stream)
            kill(llm)
        else:
            kill_when_asked(llm, record)
        with pytest.raises(MlxcelServerCrashedError) as caught:
            await (stream.result() if "stream" in method else getattr(llm, method)("slow"))
        says_how(caught.value, restarting=restart is not None)
        assert bool(caught.value.text) == ("stream" in method)
        if restart is not None:
            assert await llm.chat("again") == "echo: again"


@pytest.mark.parametrize("where", [{}, {"host": "127.0.0.1"}], ids=["uds", "tcp"])
def test_a_request_that_never_arrived_goes_to_the_next(fake_binary: Path, where: dict[str, Any]) -> None:
    slow_load = ["--fake-load-seconds", "0.5"]
    with LLM("tiny", binary=fake_binary, restart=QUICK, extra_args=slow_load, **where) as llm:
        assert llm.server is not None
        for _ in range(2):
            generation = llm.server.generation
            kill(llm)
            eventually(lambda: llm.server is not None and llm.server.state is not ServerState.READY)
            with ThreadPoolExecutor(8) as pool:
                answers = list(pool.map(llm.chat, "abcdefgh"))
            assert answers == [f"echo: {letter}" for letter in "abcdefgh"]
            assert llm.server.generation == generation + 1
            time.sleep(QUICK.stable)


async def test_a_request_that_never_arrived_async(fake_binary: Path) -> None:
    slow_load = ["--fake-load-seconds", "0.5"]
    async with AsyncLLM("tiny", binary=fake_binary, restart=QUICK, extra_args=slow_load) as llm:
        kill(llm)
        server = llm.server
        assert server is not None
        while server.state is ServerState.READY:
            await asyncio.sleep(0.01)
        answers = await asyncio.gather(*(llm.chat(letter) for letter in "abcdefgh"))
        assert answers == [f"echo: {letter}" for letter in "abcdefgh"]
        assert await llm.stream("x").result() == "0 1 2 "


@MODES
def test_the_wait_for_the_next_is_within_the_limits(fake_binary: Path, mode: str) -> None:
    stuck = Restart(limit=1, window=30, stable=1, backoff=20)
    limits = [Timeout(total=0.4), Timeout(first_token=0.4)]
    if mode == "sync":
        with LLM("tiny", binary=fake_binary, restart=stuck) as llm:
            kill(llm)
            eventually(lambda: llm.server is not None and llm.server.state is ServerState.RESTARTING)
            for limit in limits:
                with pytest.raises(MlxcelTimeoutError, match=r"0\.4 s"):
                    llm.chat("x", timeout=limit)
        return

    async def use() -> None:
        async with AsyncLLM("tiny", binary=fake_binary, restart=stuck) as llm:
            kill(llm)
            while llm.server is not None and llm.server.state is not ServerState.RESTARTING:
                await asyncio.sleep(0.01)
            for limit in limits:
                with pytest.raises(MlxcelTimeoutError, match=r"0\.4 s"):
                    await llm.chat("x", timeout=limit)

    asyncio.run(use())


def test_a_server_that_is_given_up_or_stopped_says_so(fake_binary: Path) -> None:
    with LLM("tiny", binary=fake_binary, restart=None) as llm:
        kill(llm)
        eventually(lambda: llm.server is not None and llm.server.state is ServerState.CRASHED)
        for _ in range(2):
            with pytest.raises(MlxcelServerCrashedError) as caught:
                llm.chat("x")
            says_how(caught.value, restarting=False)
    with LLM("tiny", binary=fake_binary) as llm:
        assert llm.server is not None
        llm.server.stop()
        with pytest.raises(MlxcelStateError):
            llm.chat("x")


def test_the_sdk_s_client_has_it_too(fake_binary: Path, tmp_path: Path) -> None:
    message: Any = {"role": "user", "content": "slow"}
    record = tmp_path / "record"
    with LLM("tiny", binary=fake_binary, restart=QUICK, extra_args=["--fake-record", str(record)]) as llm:
        client = llm.openai_client
        kill_when_asked(llm, record)
        with pytest.raises(MlxcelServerCrashedError):
            client.chat.completions.create(model="tiny", messages=[message])
        message["content"] = "x"
        reply = client.chat.completions.create(model="tiny", messages=[message])
        assert reply.choices[0].message.content == "echo: x"
        message["content"] = "forever"
        kill_when_asked(llm, record, requests=3)
        with pytest.raises(MlxcelServerCrashedError):
            for _ in client.chat.completions.create(model="tiny", messages=[message], stream=True):
                pass


def test_a_connection_that_breaks_without_a_death(fake_binary: Path) -> None:
    """Our own server is fine, so it is the connection that is to blame."""
    with LLM("tiny", binary=fake_binary) as llm, pytest.raises(openai.APIConnectionError, match="broke"):
        llm.chat("hang up")
