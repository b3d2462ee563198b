"""RSS over a lazy run of many prompts (aim: flat).

The server is the one of `mlxcel.testing`, in a process of its own. Printed are the RSS after each tenth of
the prompts, and the last over that after the first tenth.

    python bench/lazy_memory.py [--prompts 100000]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil

from mlxcel import LLM, AsyncLLM
from mlxcel.testing import FixtureServer

if TYPE_CHECKING:
    from collections.abc import Iterator

PARTS = 10


@contextlib.contextmanager
def running() -> Iterator[str]:
    """The address of a fixture server in a process of its own."""
    with subprocess.Popen(
        [sys.executable, __file__, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield process.stdout.readline().decode().strip()
        process.stdin.close()


def serve() -> None:
    with FixtureServer("A short answer.", slots=8) as server:
        print(server.base_url, flush=True)
        sys.stdin.read()


def prompts(count: int) -> Iterator[str]:
    return (f"What is {number} + {number}?" for number in range(count))


class Watch:
    """The RSS of this process after each part."""

    def __init__(self, name: str, count: int) -> None:
        self._name = name
        self._every = max(count // PARTS, 1)
        self._seen: list[float] = []
        self._done = 0

    def add(self) -> None:
        self._done += 1
        if self._done % self._every == 0:
            self._seen.append(psutil.Process().memory_info().rss / 1e6)
            print(f"{self._name:8} after {self._done:7} prompts {self._seen[-1]:7.1f} MB", flush=True)

    def tell(self) -> None:
        print(f"{self._name:8} last over first tenth {self._seen[-1] / self._seen[0]:.3f}x")


def blocking(base_url: str, count: int) -> None:
    watch = Watch("LLM", count)
    with LLM(base_url=base_url) as llm, llm.chat(prompts(count)) as answers:
        for _ in answers:
            watch.add()
    watch.tell()


async def awaited(base_url: str, count: int) -> None:
    watch = Watch("AsyncLLM", count)
    async with AsyncLLM(base_url=base_url) as llm, await llm.chat(prompts(count)) as answers:
        async for _ in answers:
            watch.add()
    watch.tell()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=100_000)
    parser.add_argument("--serve", action="store_true", help="be the server")
    arguments = parser.parse_args()
    if arguments.serve:
        serve()
        return
    with running() as base_url:
        blocking(base_url, arguments.prompts)
        asyncio.run(awaited(base_url, arguments.prompts))


if __name__ == "__main__":
    main()
