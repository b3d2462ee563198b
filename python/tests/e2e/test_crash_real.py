"""The real server is killed with requests running: those fail, and the next ones are answered."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from mlxcel import LLM, AsyncLLM, MlxcelServerCrashedError, Restart, Result

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.e2e

QUICK = Restart(limit=3, window=60, stable=0.2, backoff=0.1)
# Without its end-of-text tokens the model writes on until it is stopped.
LONG: dict[str, Any] = {
    "max_tokens": 7000,
    "temperature": 1.0,
    "seed": 1,
    "logit_bias": {"2040": -100, "2041": -100},
}
SHORT: dict[str, Any] = {"max_tokens": 8, "temperature": 0}


def kill(llm: LLM | AsyncLLM, by: int = signal.SIGKILL) -> None:
    assert llm.server is not None
    assert llm.server.pid is not None
    os.kill(llm.server.pid, by)


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT])
@pytest.mark.parametrize("where", [{}, {"host": "127.0.0.1"}], ids=["uds", "tcp"])
def test_sync(real_binary: Path, where: dict[str, Any], by: signal.Signals) -> None:
    with LLM("mlxcel-tiny", binary=real_binary, restart=QUICK, **where) as llm:
        before = llm.chat("What is 17 + 25?", **SHORT)
        stream = llm.stream("Once", **LONG)
        next(stream)
        kill(llm, by)
        with pytest.raises(MlxcelServerCrashedError) as caught:
            stream.result()
        assert caught.value.restarting
        assert caught.value.text
        assert caught.value.exit_code == -by
        assert llm.chat("What is 17 + 25?", **SHORT) == before
        assert llm.server is not None
        assert llm.server.generation == 2


def test_async(real_binary: Path) -> None:
    """Eight at once, and at every moment: each is answered or told of the crash, and nothing else."""

    async def use() -> None:
        async with AsyncLLM("mlxcel-tiny", binary=real_binary, restart=QUICK) as llm:
            before = await llm.chat("What is 17 + 25?", **SHORT)

            async def ask() -> list[Any]:
                answers: list[Any] = []
                end = time.monotonic() + 3
                while time.monotonic() < end:
                    answers += await asyncio.gather(
                        llm.chat("What is 17 + 25?", **SHORT), return_exceptions=True
                    )
                return answers

            cut_off = asyncio.create_task(llm.chat("Once", **LONG))
            timer = threading.Timer(1.0, kill, [llm])
            timer.start()
            answers = [
                answer for several in await asyncio.gather(*(ask() for _ in range(8))) for answer in several
            ]
            timer.join()
            with pytest.raises(MlxcelServerCrashedError):
                await cut_off
            crashed = [answer for answer in answers if isinstance(answer, MlxcelServerCrashedError)]
            answered = [answer for answer in answers if isinstance(answer, Result)]
            assert len(crashed) + len(answered) == len(answers), answers
            assert len(crashed) <= 8
            assert set(answered) == {before}

    asyncio.run(use())
