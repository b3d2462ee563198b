"""What building a result costs: from the body of a reply to validated text, in CPU time.

Printed is the median of each kind of answer: plain, typed (a pydantic model, a JSON schema), with tool
calls, and a chunk of a stream (aim: 50 µs at most for a whole answer). Exit status 1 when one is over.

    python bench/result_overhead.py [--rounds 2000] [--limit 50]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any

from openai._models import construct_type
from openai.types.chat import ChatCompletionChunk
from pydantic import BaseModel

from mlxcel._accumulate import Accumulator
from mlxcel._generation import Generation
from mlxcel._reply import Reply

if TYPE_CHECKING:
    from collections.abc import Callable

USAGE = {
    "prompt_tokens": 31,
    "completion_tokens": 14,
    "total_tokens": 45,
    "prompt_tokens_details": {"cached_tokens": 30},
}
TIMINGS = {
    "prompt_n": 1,
    "prompt_ms": 2.0,
    "prompt_per_second": 500.0,
    "predicted_n": 14,
    "predicted_ms": 30.0,
    "predicted_per_second": 466.0,
    "cache_n": 30,
    "queued_ms": 0.1,
}
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
PERSON = '{"name": "Anna", "age": 31}'
CALL = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 17, "b": 25}'}}


class Person(BaseModel):
    name: str
    age: int


def reply(text: str, finish_reason: str = "stop", **message: Any) -> bytes:
    choice = {
        "index": 0,
        "finish_reason": finish_reason,
        "message": {"role": "assistant", "content": text, **message},
    }
    return json.dumps({"id": "x", "choices": [choice], "usage": USAGE, "timings": TIMINGS}).encode()


def whole(wanted: Any, body: bytes) -> Callable[[], object]:
    """Ask and read: what each call does, with the type's schema at hand from the second call on."""
    return lambda: Generation.chat("hi", {}, wanted).read(Reply(json.loads(body), "chat", None))


def chunks(count: int) -> Callable[[], object]:
    pieces = [
        construct_type(
            type_=ChatCompletionChunk, value={"choices": [{"index": 0, "delta": {"content": "ab "}}]}
        )
        for _ in range(count)
    ]

    def add() -> None:
        accumulator = Accumulator()
        for piece in pieces:
            accumulator.add(piece)

    return add


def median_microseconds(work: Callable[[], object], rounds: int) -> float:
    for _ in range(50):
        work()
    times = []
    for _ in range(rounds):
        start = time.thread_time_ns()
        work()
        times.append(time.thread_time_ns() - start)
    return statistics.median(times) / 1000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--limit", type=float, default=50.0, help="µs that a whole answer may cost")
    arguments = parser.parse_args()
    kinds = {
        "plain text": whole(None, reply("The answer is 42. " * 10)),
        "a pydantic model": whole(Person, reply(PERSON)),
        "a JSON schema": whole(SCHEMA, reply(PERSON)),
        "two tool calls": whole(None, reply("", "tool_calls", tool_calls=[CALL, CALL])),
    }
    over = False
    for name, work in kinds.items():
        cost = median_microseconds(work, arguments.rounds)
        over = over or cost > arguments.limit
        print(f"{name}: {cost:.1f} µs a result, {cost / arguments.limit:.2f}x of {arguments.limit:g} µs")
    print(f"a chunk of a stream: {median_microseconds(chunks(100), arguments.rounds // 10) / 100:.2f} µs")
    sys.exit(over)


if __name__ == "__main__":
    main()
