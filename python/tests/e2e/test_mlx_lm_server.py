"""Connect mode against `mlx_lm.server`, which serves the built-in model too."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mlxcel import (
    LLM,
    AsyncLLM,
    MlxcelFormatError,
    MlxcelModelNotServedError,
    MlxcelTimeoutError,
    MlxcelUnsupportedError,
    Timeout,
)
from other_server import free_port, other_server

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.e2e

MODEL = Path(__file__).parents[3] / "tiny-model" / "mlxcel-tiny"
QUESTION = "What is 17 + 25?"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("mlx-lm")
    (folder / "hub").mkdir()  # it lists every model of the hub's cache: none
    port = free_port()
    command = [sys.executable, "-m", "mlx_lm", "server", "--model", str(MODEL), "--port", str(port)]
    environment = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(folder / "hub")}
    with other_server(command, port, folder / "log", environment) as address:
        yield address


@pytest.fixture
def llm(url: str) -> Iterator[LLM]:
    with LLM(base_url=url, timeout=60) as client:
        yield client


def test_the_model_is_the_one_it_lists(llm: LLM) -> None:
    assert llm.model == str(MODEL.resolve())
    with pytest.raises(MlxcelModelNotServedError, match="mlxcel-tiny"):
        llm.chat(QUESTION, model="another")


def test_answers(llm: LLM) -> None:
    answer = llm.chat(QUESTION, temperature=0, max_tokens=120)
    assert answer.reasoning, "it calls the field by another name than ours"
    assert answer
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0
    assert answer.finish_reason in ("stop", "length")
    assert llm.chat_stream(QUESTION, temperature=0, max_tokens=120).result() == answer
    limits = Timeout(first_token=60, between_tokens=60)
    streamed = llm.chat(QUESTION, temperature=0, max_tokens=120, timeout=limits)
    assert (streamed, streamed.reasoning) == (answer, answer.reasoning)
    assert llm.generate("Once upon a time", max_tokens=5).finish_reason == "length"


def test_sampling_knobs_travel(llm: LLM) -> None:
    """It knows `top_k` and `repetition_penalty`, which the SDK does not."""
    greedy = llm.generate("Once", max_tokens=16, temperature=0)
    assert llm.generate("Once", max_tokens=16, temperature=5.0, top_k=1) == greedy
    penalized = llm.generate("Once", max_tokens=16, temperature=0, repetition_penalty=50.0)
    assert penalized != greedy


def test_what_it_has_not(llm: LLM) -> None:
    with pytest.raises(MlxcelUnsupportedError, match="has no /tokenize"):
        llm.tokenize("a")
    with pytest.raises(MlxcelUnsupportedError, match="has no /detokenize"):
        llm.detokenize([1])


def test_a_limit(llm: LLM) -> None:
    with pytest.raises(MlxcelTimeoutError) as caught:
        llm.chat(QUESTION, temperature=0, max_tokens=120, timeout=Timeout(first_token=60, total=0.03))
    assert caught.value.limit == "total"
    assert llm.chat(QUESTION, temperature=0, max_tokens=1).finish_reason == "length"


def test_async(url: str) -> None:
    async def use() -> None:
        async with AsyncLLM(base_url=url, timeout=60) as llm:
            answers = await asyncio.gather(
                *(llm.chat(QUESTION, temperature=0, max_tokens=16) for _ in range(3))
            )
            assert len({str(answer) for answer in answers}) == 1
            async with llm.chat_stream(QUESTION, temperature=0, max_tokens=16) as stream:
                assert "".join([piece async for piece in stream]) == answers[0]
            with pytest.raises(MlxcelUnsupportedError):
                await llm.tokenize("a")

    asyncio.run(use())


def test_a_format_that_it_ignores_is_found_out(llm: LLM) -> None:
    for ask, prompt in ((llm.chat, QUESTION), (llm.generate, "Once upon a time")):
        with pytest.raises(MlxcelFormatError, match="ignored response_format") as caught:
            ask(prompt, response_format=list[int], temperature=0, max_tokens=120)
        assert caught.value.reason == "not_json"
        assert caught.value.text
    with pytest.raises(MlxcelFormatError), llm.chat_stream(QUESTION, response_format=bool) as stream:
        list(stream.partials())
