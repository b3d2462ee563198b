"""Measures mlxcel-tiny on problems that training never saw, and prints a table.

    python tiny-model/evaluate.py                                    # the exported folder, through mlx-lm
    python tiny-model/evaluate.py --base-url http://127.0.0.1:8080/v1  # a running OpenAI-compatible server
    python tiny-model/evaluate.py --check                            # exit 1 when a task misses its aim

Decoding is greedy. An answer counts when it is the expected one: the same text, the
same JSON value, or the same tool calls. Nothing is given for half an answer.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import chat
import generate
from tasks.base import Example

AIMS = {"two-digit sums": 0.95}
AIM = 0.90  # for every other task
MAX_TOKENS = 256
_TOOL_CALL = re.compile(r"<tool_call>\n(.*?)\n</tool_call>", re.DOTALL)


@dataclass(frozen=True)
class Answer:
    text: str
    tool_calls: list[dict[str, Any]]  # [{"name": …, "arguments": {…}}]


Backend = Callable[[Example, bool], Answer]


def parse(text: str) -> Answer:
    """What the model wrote, without its thinking and with its tool calls read."""
    text = text.rpartition("</think>")[2]
    try:
        calls = [json.loads(call) for call in _TOOL_CALL.findall(text)]
    except ValueError:
        calls = []  # a call that is no JSON is a wrong answer
    return Answer(_TOOL_CALL.sub("", text).strip(), calls)


def _question(example: Example) -> list[dict[str, Any]]:
    """The conversation up to the answer, as a client would send it."""
    messages = [{k: v for k, v in m.items() if k != "reasoning_content"} for m in example.messages[:-1]]
    for message in messages:
        for at, call in enumerate(message.get("tool_calls", ())):
            function = call["function"]
            wire = {"name": function["name"], "arguments": json.dumps(function["arguments"])}
            message["tool_calls"] = [{"id": f"call_{at}", "type": "function", "function": wire}]
        if message["role"] == "tool":
            message["tool_call_id"] = "call_0"
    return messages


def mlx_lm_backend(folder: str) -> Backend:
    """The reference implementation, in float32: on the CPU bfloat16 is many times slower."""
    import mlx.core as mx
    from mlx_lm import generate as complete
    from mlx_lm import load

    model, tokenizer = load(folder)
    model.set_dtype(mx.float32)

    def answer(example: Example, thinking: bool) -> Answer:
        prompt = tokenizer.apply_chat_template(
            _question(example), tools=list(example.tools) or None, add_generation_prompt=True, enable_thinking=thinking
        )
        return parse(complete(model, tokenizer, prompt, max_tokens=MAX_TOKENS))

    return answer


def server_backend(base_url: str, model: str | None) -> Backend:
    """A running server, asked as any OpenAI client asks it."""
    from openai import OpenAI

    client = OpenAI(base_url=base_url, api_key="unused", max_retries=0)
    name = model or client.models.list().data[0].id

    def answer(example: Example, thinking: bool) -> Answer:
        options: dict[str, Any] = {"tools": list(example.tools)} if example.tools else {}
        if thinking:
            options["extra_body"] = {"chat_template_kwargs": {"enable_thinking": True}}
        message = client.chat.completions.create(
            model=name, messages=_question(example), temperature=0, max_tokens=MAX_TOKENS, **options
        ).choices[0].message  # fmt: skip
        if not message.tool_calls:
            return parse(message.content or "")
        calls = [{"name": c.function.name, "arguments": json.loads(c.function.arguments)} for c in message.tool_calls]
        return Answer((message.content or "").strip(), calls)

    return answer


def is_right(example: Example, answer: Answer) -> bool:
    expected = example.messages[-1]
    calls = [call["function"] for call in expected.get("tool_calls", ())]
    if answer.tool_calls != calls:
        return False
    if example.check == "json":
        try:
            return json.loads(answer.text) == json.loads(expected["content"])
        except ValueError:
            return False
    return answer.text == expected["content"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default=str(chat.MODEL), help="the model to load with mlx-lm")
    parser.add_argument("--base-url", help="ask this server instead")
    parser.add_argument("--model", help="the server's name for it (default: the first it lists)")
    parser.add_argument("--count", type=int, default=200, help="problems a task")
    parser.add_argument("--task", help="only the task of this name")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--parallel", type=int, default=8, help="requests in flight, with --base-url")
    parser.add_argument("--thinking", action="store_true", help="with enable_thinking")
    parser.add_argument("--failures", action="store_true", help="print every wrong answer")
    parser.add_argument("--check", action="store_true", help="exit 1 when a task misses its aim")
    options = parser.parse_args()
    ask = server_backend(options.base_url, options.model) if options.base_url else mlx_lm_backend(options.folder)

    missed = []
    print(f"| {'task':22} | {'n':>4} | accuracy |\n| {'-' * 22} | ---: | -------: |")
    for task in generate.EVALUATED:
        examples = generate.held_out(task, options.count, options.seed)
        name = examples[0].task
        if options.task not in (None, name):
            continue
        with ThreadPoolExecutor(options.parallel if options.base_url else 1) as pool:
            answers = list(pool.map(lambda example: ask(example, options.thinking), examples))
        rights = [is_right(example, answer) for example, answer in zip(examples, answers, strict=True)]
        accuracy = sum(rights) / len(rights)
        print(f"| {name:22} | {len(rights):4} | {accuracy:8.1%} |", flush=True)
        if accuracy < AIMS.get(name, AIM):
            missed.append(name)
        if options.failures:
            for example, answer, right in zip(examples, answers, rights, strict=True):
                if not right:
                    print(
                        json.dumps(
                            [_question(example)[-1]["content"], example.messages[-1], answer.text, answer.tool_calls]
                        ),
                        file=sys.stderr,
                    )
    if options.check and missed:
        print(f"below the aim: {', '.join(missed)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
