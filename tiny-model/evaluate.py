"""Measures mlxcel-tiny on problems that training never saw, and prints a table.

    python tiny-model/evaluate.py                                    # the exported folder, through mlx-lm
    python tiny-model/evaluate.py --base-url http://127.0.0.1:8080/v1  # a running OpenAI-compatible server
    python tiny-model/evaluate.py --check                            # exit 1 when a task misses its aim
    python tiny-model/evaluate.py --context 8000 --count 4           # at the end of a long conversation

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
from dataclasses import dataclass, replace
from typing import Any

from tokenizers import Tokenizer

import chat
import generate
from tasks.base import Draw, Example

AIMS = {"two-digit sums": 0.95}
AIM = 0.90  # for every other task
MAX_TOKENS = 256
_TOOL_CALL = re.compile(r"<tool_call>\n(.*?)\n</tool_call>", re.DOTALL)


@dataclass(frozen=True)
class Answer:
    text: str
    tool_calls: list[dict[str, Any]]  # [{"name": …, "arguments": {…}}]


Backend = Callable[[str], str]  # prompt to text


def parse(text: str) -> Answer:
    """What the model wrote, without its thinking and with its tool calls read."""
    text = text.rpartition("</think>")[2]
    try:
        calls = [json.loads(call) for call in _TOOL_CALL.findall(text)]
    except ValueError:
        calls = []  # a call that is no JSON is a wrong answer
    return Answer(_TOOL_CALL.sub("", text).strip(), calls)


def prompt_of(example: Example, thinking: bool) -> str:
    """The conversation up to the answer, through the model's own template."""
    messages = [{k: v for k, v in m.items() if k != "reasoning_content"} for m in example.messages[:-1]]
    return chat.render(messages, list(example.tools), add_generation_prompt=True, enable_thinking=thinking)


def lengthened(example: Example, tokens: int, tokenizer: Tokenizer, draw: Draw) -> Example:
    """The same problem after so many tokens of other tasks (`--context`), or as it is when that is 0."""
    before: tuple[dict[str, Any], ...] = ()
    at = len(tokenizer.encode(prompt_of(example, thinking=False)).ids)
    while True:
        more = generate.earlier(draw, 1)
        at += len(tokenizer.encode(chat.render(list(more))).ids)
        if at > tokens:
            return replace(example, messages=before + example.messages)
        before += more


def mlx_lm_backend(folder: str) -> Backend:
    """The reference implementation, in float32: on the CPU bfloat16 is many times slower."""
    import mlx.core as mx
    from mlx_lm import generate as complete
    from mlx_lm import load

    model, tokenizer = load(folder)
    model.set_dtype(mx.float32)
    return lambda prompt: complete(model, tokenizer, prompt, max_tokens=MAX_TOKENS)


def server_backend(base_url: str, model: str | None) -> Backend:
    """A running server. The prompts go to `/v1/completions`, so it need not know tools or thinking."""
    from openai import OpenAI

    client = OpenAI(base_url=base_url, api_key="unused", max_retries=0)
    name = model or client.models.list().data[0].id

    def answer(prompt: str) -> str:
        return (
            client.completions.create(model=name, prompt=prompt, temperature=0, max_tokens=MAX_TOKENS).choices[0].text
        )

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
    parser.add_argument(
        "--context", type=int, default=0, metavar="TOKENS", help="ask at the end of so long a conversation"
    )
    parser.add_argument("--parallel", type=int, default=8, help="requests in flight, with --base-url")
    parser.add_argument("--thinking", action="store_true", help="with enable_thinking")
    parser.add_argument("--failures", action="store_true", help="print every wrong answer")
    parser.add_argument("--check", action="store_true", help="exit 1 when a task misses its aim")
    options = parser.parse_args()
    ask = server_backend(options.base_url, options.model) if options.base_url else mlx_lm_backend(options.folder)

    tokenizer = Tokenizer.from_file(str(chat.MODEL / "tokenizer.json"))
    draw = Draw(options.seed, "train")
    scores: dict[str, list[bool]] = {}
    for task in generate.EVALUATED:
        examples = [e for e in generate.held_out(task, options.count, options.seed) if options.task in (None, e.task)]
        examples = [lengthened(example, options.context, tokenizer, draw) for example in examples]
        prompts = [prompt_of(example, options.thinking) for example in examples]
        if options.base_url:
            with ThreadPoolExecutor(options.parallel) as pool:
                texts = list(pool.map(ask, prompts))
        else:  # MLX keeps to the thread that loaded the model
            texts = [ask(prompt) for prompt in prompts]
        for example, text in zip(examples, texts, strict=True):
            right = is_right(example, parse(text))
            scores.setdefault(example.task, []).append(right)
            if options.failures and not right:
                print(json.dumps([example.messages[-2]["content"], example.messages[-1], text]), file=sys.stderr)
    if not scores:
        parser.error(f"no task is called {options.task!r}")

    print("| task | n | accuracy |\n| --- | ---: | ---: |")
    missed = []
    for name, rights in scores.items():
        accuracy = sum(rights) / len(rights)
        print(f"| {name} | {len(rights)} | {accuracy:.1%} |")
        if accuracy < AIMS.get(name, AIM):
            missed.append(name)
    rights = [right for task in scores.values() for right in task]
    print(f"| all together | {len(rights)} | {sum(rights) / len(rights):.1%} |")
    if options.check and missed:
        print(f"below the aim: {', '.join(missed)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
