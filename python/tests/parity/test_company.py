"""Requests in company say what they say alone, bit for bit, whatever their model's layers keep.

They come at random times and lengths, share beginnings, wait for room, and some leave early. What is compared
goes through windows, recurrences, latents and experts, over the ends of windows and chunks of prompts.
"""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from checkpoints import VOCAB
from families import deepseek_v3, gemma3_text, gpt_oss, qwen3_5, qwen3_next

from support import connected

if TYPE_CHECKING:
    from pathlib import Path

    import httpx2

    Body = dict[str, Any]

pytestmark = pytest.mark.e2e

REQUESTS = 24
# Each with memory for a few of the longest requests, or for more that share a beginning.
FAMILIES = {
    "deepseek_v3": (deepseek_v3.FAMILY, "2MiB"),
    "gemma3_text": (gemma3_text.FAMILY, "6MiB"),
    "gpt_oss": (gpt_oss.FAMILY, "4MiB"),
    "qwen3_5": (qwen3_5.FAMILY, "4MiB"),
    "qwen3_next": (qwen3_next.FAMILY, "4MiB"),
}
SAMPLE = ("gpt_oss", "qwen3_5")
CROWDED = ("--n-parallel", "8", "--ctx-size", "1024", "--kv-cache-budget")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    metafunc.parametrize("name", FAMILIES if metafunc.config.getoption("--parity") == "all" else SAMPLE)


def bodies(draw: random.Random) -> list[Body]:
    """Prompts of a few beginnings, cut and continued anywhere, greedy and drawn."""
    beginnings = [[draw.randrange(VOCAB) for _ in range(900)] for _ in range(4)]

    def body(seed: int) -> Body:
        common = draw.choice(beginnings)[: draw.choice([0, 3, 95, 256, 300, 511, 512, 513, 700])]
        own = [draw.randrange(VOCAB) for _ in range(draw.choice([1, 2, 40, 130]))]
        return {
            "prompt": common + own,
            "max_tokens": draw.randrange(1, 80),
            "temperature": draw.choice([0, 1]),
            "seed": seed,
            "logprobs": 2,
        }

    return [body(seed) for seed in range(REQUESTS)]


def answer(http: httpx2.Client, body: Body) -> Any:
    response = http.post("/v1/completions", json=body)
    assert response.status_code == 200, response.text
    (choice,) = response.json()["choices"]
    return choice["logprobs"]


def leave(http: httpx2.Client, body: Body, after: int) -> None:
    """Begins to read an answer, and hangs up."""
    with http.stream("POST", "/v1/completions", json=body | {"stream": True, "max_tokens": 200}) as response:
        lines = response.iter_lines()
        for _ in range(after):
            next(lines, None)


def cached(http: httpx2.Client) -> float:
    """Tokens that were found in the prefix cache."""
    lines = http.get("/metrics").text.splitlines()
    (line,) = [line for line in lines if line.startswith("vllm:prefix_cache_hits_total")]
    return float(line.split()[-1])


def test_company(name: str, tmp_path: Path, real_binary: Path) -> None:
    folder = tmp_path / "model"
    family, budget = FAMILIES[name]
    family.quantized(4, 32)(folder)
    draw = random.Random(name)
    asked = bodies(draw)
    longest = max(range(REQUESTS), key=lambda place: len(asked[place]["prompt"]))
    with connected(str(folder), real_binary, "--no-prefix-cache") as http:
        alone = [answer(http, body) for body in asked]
    with (
        connected(str(folder), real_binary, *CROWDED, budget) as http,
        ThreadPoolExecutor(REQUESTS) as threads,
    ):
        for _ in range(2):
            order = draw.sample(range(REQUESTS), REQUESTS)
            coming, leaving = {}, []
            for place in order:
                coming[place] = threads.submit(answer, http, asked[place])
                if draw.random() < 0.4:
                    leaving.append(threads.submit(leave, http, draw.choice(asked), draw.randrange(40)))
                time.sleep(draw.random() * 0.02)
            for place, answered in coming.items():
                assert answered.result() == alone[place], asked[place]
            for left in leaving:
                left.result()
        # Nobody is in the way of these: the second is computed from what the first left.
        before = cached(http)
        for _ in range(2):
            assert answer(http, asked[longest]) == alone[longest]
        assert cached(http) > before
