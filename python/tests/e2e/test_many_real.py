"""Many prompts against the real server: the right answers in order, and no slot taken by what was closed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mlxcel import LLM
from support import eventually

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.e2e


def busy(llm: LLM) -> int:
    props = llm._get("/props")
    assert isinstance(props, dict)
    return int(props["busy_slots"]) + int(props["queued_requests"])


def test_order_and_closing(real_binary: Path) -> None:
    with LLM("mlxcel-tiny", binary=real_binary, n_parallel=4) as llm:
        sums = [(number % 9, number // 9) for number in range(60)]
        answers = llm.chat([f"What is {a} + {b}?" for a, b in sums], temperature=0, max_tokens=20)
        assert answers == [f"{a} + {b} = {a + b}" for a, b in sums]

        endless = (f"Tell me {number}" for number in range(10**9))
        # Without its end-of-text tokens the model writes on: the first is over long before the last.
        bias = {"2040": -100, "2041": -100}
        with llm.generate(endless, max_tokens=500, temperature=1, logit_bias=bias) as results:
            next(results)
            eventually(lambda: busy(llm) > 0)
        eventually(lambda: busy(llm) == 0, 10)
        assert llm.chat("What is 1 + 1?", temperature=0, max_tokens=20) == "1 + 1 = 2"
