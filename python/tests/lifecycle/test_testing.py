"""`mlxcel.testing`: what a user's tests can make the fixture server do."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import tomllib
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openai
import pytest

from mlxcel import (
    LLM,
    AsyncLLM,
    MlxcelConnectionError,
    MlxcelRefusalError,
    MlxcelTimeoutError,
    MlxcelToolArgumentsError,
)
from mlxcel.testing import Exchange, FixtureServer, HangUp, Refuse, Reply, Stall

if TYPE_CHECKING:
    from collections.abc import Iterator

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


@pytest.fixture
def server() -> Iterator[FixtureServer]:
    with FixtureServer() as server:
        yield server


@pytest.fixture
def llm(server: FixtureServer) -> Iterator[LLM]:
    with LLM(base_url=server.base_url) as llm:
        yield llm


def test_without_a_script_it_sends_back_what_was_asked(server: FixtureServer, llm: LLM) -> None:
    assert llm.chat("one") == "one"
    assert llm.generate("two words") == "two words"
    assert list(llm.stream("two words")) == ["two ", "words"]
    assert [request.prompt for request in server.requests] == ["one", "two words", "two words"]
    assert server.requests[0].body["messages"] == [{"role": "user", "content": "one"}]
    assert server.requests[0].path == "/v1/chat/completions"


def test_one_script_for_each_request(server: FixtureServer, llm: LLM) -> None:
    server.script = [
        "first",
        Reply("second", finish_reason="length", completion_tokens=9),
        Refuse(429, "slow down"),
    ]
    assert llm.chat("a") == "first"
    second = llm.chat("b")
    assert (second, second.finish_reason) == ("second", "length")
    assert second.usage is not None
    assert (second.usage.completion_tokens, second.usage.total_tokens) == (9, 10)
    with pytest.raises(openai.RateLimitError, match="slow down"):
        llm.chat("c")
    with pytest.raises(openai.InternalServerError, match="is used up"):
        llm.chat("d")


def test_the_same_whole_and_streamed(server: FixtureServer, llm: LLM) -> None:
    tools: list[tuple[str, Any]] = [("add", {"a": 1, "b": 2}), ("add", '{"a": ')]
    server.script = Reply(["He", "llo"], reasoning="Hm.", tool_calls=tools)
    whole = llm.chat("p")
    with llm.chat_stream("p") as stream:
        assert list(stream) == ["He", "llo"]
    for result in (whole, stream.result()):
        assert (result, result.reasoning, result.finish_reason) == ("Hello", "Hm.", "tool_calls")
        first, second = result.tool_calls
        assert (first.name, first.arguments) == ("add", {"a": 1, "b": 2})
        with pytest.raises(MlxcelToolArgumentsError):
            _ = second.arguments
        assert result.usage == whole.usage


def test_choices_and_a_refusal(server: FixtureServer, llm: LLM) -> None:
    for result in (
        llm.chat("a b", n=3),
        llm.chat_stream("a b", n=3).result(),
        llm.generate("a b", n=3),
        llm.stream("a b", n=3).result(),
    ):
        assert result.choices == ["a b"] * 3
    server.script = Reply(refusal="no")
    for result in (llm.chat("a"), llm.chat_stream("a").result()):
        assert (result, result.refusal) == ("", "no")
    with pytest.raises(MlxcelRefusalError, match="no"):
        llm.chat("a", response_format=int)


def test_delays(server: FixtureServer, llm: LLM) -> None:
    server.script = Reply("a b c", delay=0.2, between=0.1)
    began = time.monotonic()
    assert llm.chat("p") == "a b c"
    assert time.monotonic() - began >= 0.2
    began = time.monotonic()
    assert llm.chat_stream("p").result() == "a b c"
    assert time.monotonic() - began >= 0.4


def test_faults(server: FixtureServer, llm: LLM) -> None:
    server.script = [HangUp(), HangUp(["half "]), Stall(), Stall(["half "])]
    with pytest.raises(MlxcelConnectionError):
        llm.chat("p")
    with pytest.raises(MlxcelConnectionError) as broken:
        llm.chat_stream("p").result()
    assert broken.value.text == "half "
    with pytest.raises(MlxcelTimeoutError):
        llm.chat("p", timeout=2)
    with pytest.raises(MlxcelTimeoutError) as stalled:
        llm.stream("p", timeout=2).result()
    assert stalled.value.text == "half "
    for _ in range(2):
        assert server.left.acquire(timeout=10)


def test_a_function_as_script(server: FixtureServer, llm: LLM) -> None:
    def script(exchange: Exchange) -> str | None:
        if exchange.path == "/tokenize":
            exchange.json(200, {"tokens": [1, 2, 3]})
            return None
        return f"{exchange.prompt} at {exchange.body['temperature']}"

    server.script = script
    assert llm.chat("p", temperature=0) == "p at 0"
    assert llm.tokenize("text") == [1, 2, 3]


def test_what_it_knows_of_itself() -> None:
    with FixtureServer(models=("a", "b"), slots=3, api_key="k") as server:
        with LLM(base_url=server.base_url, api_key="k") as llm:
            assert llm.model == "a"
            assert llm.chat("p", model="b") == "p"
            assert llm._get("/props") == {"total_slots": 3}
        with LLM(base_url=server.base_url, api_key="wrong") as llm, pytest.raises(openai.AuthenticationError):
            llm.chat("p")


def test_for_async_code(server: FixtureServer) -> None:
    async def use() -> list[Any]:
        async with AsyncLLM(base_url=server.base_url) as llm:
            return await llm.chat(["a", "b", "c"])

    assert asyncio.run(use()) == ["a", "b", "c"]


def test_the_plugin(tmp_path: Path) -> None:
    """In another project: the fixture is there, and costs the tests nothing that do not use it."""
    entry = tomllib.loads(PYPROJECT.read_text())["project"]["entry-points"]["pytest11"]["mlxcel"]
    assert hasattr(import_module(entry), "mlxcel_server")
    (tmp_path / "test_theirs.py").write_text(
        "import sys\n"
        "def test_late():\n"
        "    assert not {'mlxcel.testing', 'mlxcel.llm', 'http.server', 'openai'} & set(sys.modules)\n"
        "def test_asked(mlxcel_server):\n"
        "    from mlxcel import LLM\n"
        "    mlxcel_server.script = 'scripted'\n"
        "    with LLM(base_url=mlxcel_server.base_url) as llm:\n"
        "        assert llm.chat('p') == 'scripted'\n"
        "    assert mlxcel_server.requests[0].prompt == 'p'\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", entry, "-p", "no:cacheprovider", str(tmp_path)],
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr
