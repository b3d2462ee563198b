"""Connect mode against llama-cpp-python's server, which lives in an environment of its own.

`make test-llama` builds that environment and names its Python in
MLXCEL_TEST_LLAMA_PYTHON; without it these tests have nothing to run against.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import openai
import pytest

from mlxcel import (
    LLM,
    AsyncLLM,
    MlxcelModelNotServedError,
    MlxcelTimeoutError,
    MlxcelUnsupportedError,
    Timeout,
)
from other_server import free_port, other_server

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    python = os.environ.get("MLXCEL_TEST_LLAMA_PYTHON")
    if not python:
        pytest.fail("run this through `make test-llama`, which installs llama-cpp-python")
    folder = tmp_path_factory.mktemp("llama")
    model = folder / "random.gguf"
    subprocess.run([python, str(Path(__file__).with_name("tiny_gguf.py")), str(model)], check=True)
    port = free_port()
    command = [python, "-m", "llama_cpp.server", "--model", str(model), "--model_alias", "random"]
    command += ["--port", str(port), "--n_ctx", "2048", "--n_threads", "1"]
    with other_server(command, port, folder / "log", {}) as address:
        yield address


@pytest.fixture
def llm(url: str) -> Iterator[LLM]:
    with LLM(base_url=url, timeout=60) as client:
        yield client


def test_answers(llm: LLM) -> None:
    assert llm.model == "random"
    answer = llm.chat("ba da", temperature=0, max_tokens=12)
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0
    assert llm.chat_stream("ba da", temperature=0, max_tokens=12).result() == answer
    limits = Timeout(first_token=60, between_tokens=60)
    assert llm.chat("ba da", temperature=0, max_tokens=12, timeout=limits) == answer
    assert (
        llm.generate("ba", temperature=0, max_tokens=12)
        == llm.stream("ba", temperature=0, max_tokens=12).result()
    )


def test_it_would_answer_to_any_name(llm: LLM) -> None:
    """Which is why the client looks at the list."""
    with pytest.raises(MlxcelModelNotServedError, match="it serves 'random'"):
        llm.chat("ba", model="another", max_tokens=2)
    assert llm.generate("ba", max_tokens=2, extra_body={"model": "another"}).finish_reason


def test_sampling_knobs_travel(llm: LLM) -> None:
    greedy = llm.generate("ba", max_tokens=12, temperature=0)
    assert llm.generate("ba", max_tokens=12, temperature=2.0, top_k=1, seed=5) == greedy


def test_what_it_has_not(llm: LLM) -> None:
    with pytest.raises(MlxcelUnsupportedError, match="has no /tokenize"):
        llm.tokenize("a")


def test_a_bad_request(llm: LLM) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        llm.chat("a", max_tokens="many")
    assert caught.value.status_code in (400, 422, 500), "whatever it chooses to say"


def test_a_limit(llm: LLM) -> None:
    with pytest.raises(MlxcelTimeoutError):
        llm.generate("ba", max_tokens=2000, timeout=0.1)
    assert llm.generate("ba", max_tokens=2)


def test_async(url: str) -> None:
    async def use() -> None:
        async with AsyncLLM(base_url=url, timeout=60) as llm:
            whole = await llm.chat("ba da", temperature=0, max_tokens=12)
            async with llm.chat_stream("ba da", temperature=0, max_tokens=12) as stream:
                assert "".join([piece async for piece in stream]) == whole

    asyncio.run(use())
