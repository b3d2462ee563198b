"""`LLM` and `AsyncLLM` with a server of their own: starting, cancelling, failing, closing."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openai
import pytest

from mlxcel import LLM, AsyncLLM, ManagedServer, MlxcelResponseError, MlxcelServerError, MlxcelStateError
from support import alive, eventually, eventually_async, records

if TYPE_CHECKING:
    from collections.abc import Coroutine


def pid_of(llm: LLM | AsyncLLM) -> int:
    assert llm.server is not None
    assert llm.server.pid is not None
    return llm.server.pid


@pytest.mark.parametrize("options", [{}, {"host": "127.0.0.1"}, {"extra_args": ["--fake-old"]}])
def test_the_main_job(fake_binary: Path, options: dict[str, Any]) -> None:
    with LLM("tiny", binary=fake_binary, **options) as llm:
        pid = pid_of(llm)
        assert llm.model == "tiny"
        assert llm.chat("hello") == "echo: hello"
        assert llm.generate("hello") == "echo: hello"
        assert list(llm.stream("hello")) == ["0 ", "1 ", "2 "]
        assert llm.chat_stream("hello").result() == "0 1 2 "
        assert llm.detokenize(llm.tokenize("héllo")) == "héllo"
    assert not alive(pid)


@pytest.mark.parametrize("options", [{}, {"host": "127.0.0.1"}, {"extra_args": ["--fake-old"]}])
async def test_the_main_job_async(fake_binary: Path, options: dict[str, Any]) -> None:
    async with AsyncLLM("tiny", binary=fake_binary, **options) as llm:
        pid = pid_of(llm)
        assert llm.model == "tiny"
        assert await llm.chat("hello") == "echo: hello"
        assert await llm.generate("hello") == "echo: hello"
        assert [piece async for piece in llm.stream("hello")] == ["0 ", "1 ", "2 "]
        assert await llm.chat_stream("hello").result() == "0 1 2 "
        assert await llm.detokenize(await llm.tokenize("héllo")) == "héllo"
    assert not alive(pid)


def test_connecting_to_a_managed_server(fake_binary: Path) -> None:
    with ManagedServer("tiny", binary=fake_binary) as server:
        with LLM(socket=server.socket_path, api_key=server.api_key) as llm:
            assert llm.server is None
            assert llm.chat("a") == "echo: a"
        with LLM(socket=server.socket_path) as llm, pytest.raises(openai.AuthenticationError):
            llm.chat("a")
        assert server.poll() is None, "a client that only connected stops nothing"


@pytest.mark.parametrize(
    ("flags", "error"), [([], openai.BadRequestError), (["--fake-old"], openai.APIStatusError)]
)
def test_bad_requests_keep_the_server_s_status(
    fake_binary: Path, flags: list[str], error: type[Exception]
) -> None:
    with LLM("tiny", binary=fake_binary, extra_args=flags) as llm, pytest.raises(error, match="negative"):
        llm.chat("a", temperature=-1)


def test_a_constructor_that_fails_leaves_nothing(fake_binary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[ManagedServer] = []
    spawn = ManagedServer.spawn

    def remember(self: ManagedServer) -> None:
        spawn(self)
        started.append(self)

    def fail(*args: object) -> None:
        raise RuntimeError("no client today")

    monkeypatch.setattr(ManagedServer, "spawn", remember)
    monkeypatch.setattr("mlxcel._sdk.sync_client", fail)
    with pytest.raises(RuntimeError, match="no client today"):
        LLM("tiny", binary=fake_binary)
    assert started[0].poll() is not None
    with pytest.raises(MlxcelServerError, match="lm_head"):
        LLM("tiny", binary=fake_binary, extra_args=["--fake-exit", "1"])
    assert started[1].poll() is not None
    gc.collect()  # a loud __del__ would be an error here


def test_half_made_objects_die_silently() -> None:
    for cls in (LLM, AsyncLLM, ManagedServer):
        cls.__new__(cls)
    gc.collect()


def test_a_forgotten_client_takes_its_server_along(fake_binary: Path) -> None:
    llm = LLM("tiny", binary=fake_binary)
    llm.chat("a")
    pid = pid_of(llm)
    del llm
    gc.collect()
    assert not alive(pid)


def leave_by_break(llm: LLM) -> None:
    for _ in llm.stream("forever"):
        break


def leave_by_with(llm: LLM) -> None:
    with llm.chat_stream("forever") as stream:
        next(stream)


def leave_by_close(llm: LLM) -> None:
    stream = llm.stream("forever")
    next(stream)
    stream.close()
    assert list(stream) == []
    with pytest.raises(MlxcelStateError, match="closed before its end"):
        stream.result()
    assert stream.text == "0 "


def leave_by_exception(llm: LLM) -> None:
    with contextlib.suppress(ZeroDivisionError), llm.stream("forever") as stream:
        for _ in stream:
            raise ZeroDivisionError


def leave_unread(llm: LLM) -> None:
    llm.stream("forever")


def disconnected(record: Path) -> bool:
    return any("disconnected_after" in entry for entry in records(record))


@pytest.mark.parametrize(
    "leave", [leave_by_break, leave_by_with, leave_by_close, leave_by_exception, leave_unread]
)
def test_leaving_a_stream_frees_the_server(fake_binary: Path, tmp_path: Path, leave: Any) -> None:
    record = tmp_path / "record"
    with LLM("tiny", binary=fake_binary, extra_args=["--fake-record", str(record)]) as llm:
        leave(llm)
        eventually(lambda: disconnected(record))


@pytest.mark.parametrize("how", ["break", "with", "cancel"])
async def test_leaving_an_async_stream_frees_the_server(fake_binary: Path, tmp_path: Path, how: str) -> None:
    record = tmp_path / "record"
    async with AsyncLLM("tiny", binary=fake_binary, extra_args=["--fake-record", str(record)]) as llm:
        if how == "break":
            async for _ in llm.stream("forever"):
                break
        elif how == "with":
            async with llm.chat_stream("forever") as stream:
                await anext(stream)
        else:
            task = asyncio.ensure_future(llm.stream("forever").result())
            await eventually_async(lambda: len(records(record)) == 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await eventually_async(lambda: disconnected(record))


def test_a_stream_that_is_cut_short_says_so(fake_binary: Path) -> None:
    with (
        LLM("tiny", binary=fake_binary) as llm,
        pytest.raises(MlxcelResponseError, match="ended before") as caught,
    ):
        llm.stream("cut short").result()
    assert caught.value.text == "0 1 2 "


def test_a_timeout_of_a_request(fake_binary: Path, tmp_path: Path) -> None:
    record = tmp_path / "record"
    with LLM("tiny", binary=fake_binary, timeout=2.0, extra_args=["--fake-record", str(record)]) as llm:
        with pytest.raises(openai.APITimeoutError):
            llm.chat("slow")
        with pytest.raises(openai.APITimeoutError):
            llm.generate("slow", timeout=1.0)
    assert len(records(record)) == 2, "no retries"


def test_one_client_from_many_threads(fake_binary: Path) -> None:
    with LLM("tiny", binary=fake_binary) as llm, ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(llm.chat, (str(i) for i in range(64))))
    assert answers == [f"echo: {i}" for i in range(64)]


def test_an_async_client_through_several_loops(fake_binary: Path) -> None:
    llm = AsyncLLM("tiny", binary=fake_binary)
    assert llm.server is not None
    assert llm.server.pid is None, "the constructor starts nothing"
    assert asyncio.run(llm.chat("a")) == "echo: a"
    pid = pid_of(llm)
    assert asyncio.run(llm.chat("b")) == "echo: b"
    assert pid_of(llm) == pid
    asyncio.run(llm.close())
    assert not alive(pid)


def test_connections_are_closed_with_their_loop(fake_binary: Path) -> None:
    llm = AsyncLLM("tiny", binary=fake_binary)
    asyncio.run(llm.chat("a"))
    descriptors = len(list(Path("/dev/fd").iterdir()))
    for _ in range(5):
        asyncio.run(llm.chat("a"))
    assert len(list(Path("/dev/fd").iterdir())) <= descriptors
    asyncio.run(llm.close())


async def test_concurrent_first_requests_share_one_start(fake_binary: Path) -> None:
    llm = AsyncLLM("tiny", binary=fake_binary, extra_args=["--fake-load-seconds", "0.3"])
    try:
        answers = await asyncio.gather(*(llm.chat(str(i)) for i in range(20)))
        assert answers == [f"echo: {i}" for i in range(20)]
    finally:
        await llm.close()


async def test_an_async_start_that_fails(fake_binary: Path) -> None:
    llm = AsyncLLM("tiny", binary=fake_binary, extra_args=["--fake-exit", "1"])
    with pytest.raises(MlxcelServerError, match="lm_head"):
        await llm.ready()
    with pytest.raises(MlxcelServerError, match="lm_head"):
        async with llm:
            pass
    with pytest.raises(MlxcelStateError, match="closed"):
        await llm.ready()


async def cancel_once_spawned(llm: AsyncLLM, start: Coroutine[Any, Any, object]) -> None:
    task = asyncio.create_task(start)
    await eventually_async(lambda: llm.server is not None and llm.server.pid is not None)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancelling_an_async_start(fake_binary: Path) -> None:
    llm = AsyncLLM("tiny", binary=fake_binary, extra_args=["--fake-stuck"])
    await cancel_once_spawned(llm, llm.ready())
    pid = pid_of(llm)
    assert alive(pid), "others may wait for it too"
    await llm.close()
    assert not alive(pid)


async def test_cancelling_the_entry_cleans_up(fake_binary: Path) -> None:
    llm = AsyncLLM("tiny", binary=fake_binary, extra_args=["--fake-stuck"])
    await cancel_once_spawned(llm, llm.__aenter__())
    assert not alive(pid_of(llm))


async def test_close_right_after_the_start_began(fake_binary: Path) -> None:
    llm = AsyncLLM("tiny", binary=fake_binary, extra_args=["--fake-stuck"])
    start = asyncio.create_task(llm.ready())
    await asyncio.sleep(0)
    await llm.close()
    with pytest.raises((MlxcelServerError, MlxcelStateError)):
        await start
    assert llm.server is not None
    assert llm.server.pid is None or not alive(llm.server.pid)
