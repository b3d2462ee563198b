"""With the real server: an answer streamed because of a limit is the answer that comes whole."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

from mlxcel import LLM, AsyncLLM, MlxcelModelNotServedError, MlxcelTimeoutError, Timeout

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlxcel import Result

pytestmark = pytest.mark.e2e

LIMITS = Timeout(first_token=60, between_tokens=60, total=120)
REQUESTS: list[tuple[str, str, dict[str, Any]]] = [
    ("chat", "What is 17 + 25?", {"max_tokens": 64}),
    ("chat", "What is 17 + 25?", {"max_tokens": 3}),
    ("chat", "Say something.", {"max_tokens": 12, "n": 3, "temperature": 1.0, "seed": 7}),
    ("chat", "What is 17 + 25?", {"max_tokens": 16, "logprobs": True, "top_logprobs": 3}),
    ("chat", "Count from 1 to 9.", {"max_tokens": 64, "stop": ["5"]}),
    (
        "chat",
        "Extract name and age as JSON: Anna is 31 years old.",
        {"max_tokens": 80, "response_format": {"type": "json_object"}},
    ),
    ("generate", "Once upon a time", {"max_tokens": 20}),
    ("generate", "Once upon a time", {"max_tokens": 20, "n": 2, "temperature": 1.0, "seed": 3}),
    ("generate", "Once upon a time", {"max_tokens": 8, "logprobs": 2}),
]


@pytest.fixture(scope="module")
def llm(real_binary: Path) -> Iterator[LLM]:
    with LLM("mlxcel-tiny", binary=real_binary) as running:
        yield running


def facts(result: Result) -> list[dict[str, Any]]:
    """Everything about an answer that does not depend on the clock, nor on a call's random id."""
    return [
        {
            "text": str(choice),
            "usage": (choice.usage.prompt_tokens, choice.usage.completion_tokens) if choice.usage else None,
            "finish_reason": choice.finish_reason,
            "logprobs": choice.logprobs.model_dump() if choice.logprobs else None,
            "reasoning": choice.reasoning,
            "timings": sorted(choice.timings.raw),
        }
        for choice in result.choices
    ]


@pytest.mark.parametrize(("method", "text", "options"), REQUESTS)
async def test_equal(llm: LLM, method: str, text: str, options: dict[str, Any]) -> None:
    options = {"temperature": 0, **options}
    whole = getattr(llm, method)(text, **options)
    assert facts(getattr(llm, method)(text, timeout=LIMITS, **options)) == facts(whole)
    assert llm.server is not None
    async with AsyncLLM(socket=llm.server.socket_path, api_key=llm.server.api_key) as other:
        assert facts(await getattr(other, method)(text, timeout=LIMITS, **options)) == facts(whole)
    assert len(whole.choices) == options.get("n", 1)


def test_a_stopped_server_and_its_return(llm: LLM) -> None:
    assert llm.server is not None
    assert llm.server.pid is not None
    os.kill(llm.server.pid, signal.SIGSTOP)
    try:
        for limits in (0.4, Timeout(first_token=0.4), Timeout(total=0.4, between_tokens=9)):
            with pytest.raises(MlxcelTimeoutError):
                llm.chat("a", timeout=limits)
        resume = threading.Timer(0.5, os.kill, (llm.server.pid, signal.SIGCONT))
        resume.start()
        assert llm.chat("What is 17 + 25?", max_tokens=8, timeout=60)
        resume.join()
    finally:
        os.kill(llm.server.pid, signal.SIGCONT)


def test_a_model_that_is_not_served(llm: LLM) -> None:
    with pytest.raises(MlxcelModelNotServedError, match="it serves 'mlxcel-tiny'"):
        llm.chat("a", model="something-else")
