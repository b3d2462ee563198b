"""Decode speed with structured output over that without it, for one stream and several, in one run.

    python bench/constrained.py [--binary target/release/mlxcel] [--vocab 2048 151936] [--streams 1 8]

Random weights with a vocabulary of the given size (the built-in tokenizer's, or one filled up with made-up
words). Every output is one long text of the same token, free or within a schema, so that all of them compute
the same and differ in the masks alone; rounds alternate, and the median ratio is printed. The last column is
a schema of many names with short values: forced tokens are taken without a pass each, so it may be above 1.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from random_models import SAME_TOKEN, Shape, write

from mlxcel import LLM

TOKENS = 200
TEXT = {
    "type": "object",
    "properties": {"text": {"type": "string", "minLength": 100_000}},
    "required": ["text"],
    "additionalProperties": False,
}
RECORD = {
    "type": "array",
    "minItems": 1000,
    "items": {
        "type": "object",
        "properties": {f"a property of the name {n}": {"type": "boolean"} for n in range(6)},
        "required": [f"a property of the name {n}" for n in range(6)],
        "additionalProperties": False,
    },
}
SCHEMAS: dict[str, Any] = {"free": None, "text": TEXT, "record": RECORD}


def fill(folder: Path, vocab: int) -> None:
    """Adds words to the tokenizer until it has one for every row of the model's head."""
    file = folder / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    words = tokenizer["model"]["vocab"]
    taken = {*words.values(), *(token["id"] for token in tokenizer["added_tokens"])}
    draw = random.Random(0)
    for number in range(vocab):
        if number in taken:
            continue
        word = ""
        while not word or word in words:
            letters = draw.choices("etaoinshrdlucmfwypvbgkqjxz0123456789-_.,", k=draw.randint(2, 11))
            word = draw.choice(["Ġ", ""]) + "".join(letters)
        words[word] = number
    file.write_text(json.dumps(tokenizer, ensure_ascii=False))


def speed(llm: LLM, schema: dict[str, Any] | None, streams: int) -> float:
    """Tokens a second over all streams."""
    fields = SAME_TOKEN if schema is None else SAME_TOKEN | {"json_schema": schema}
    create: Any = llm.openai_client.completions.create

    def one(seed: int) -> int:
        answer = create(
            model="m", prompt="Hello", max_tokens=TOKENS, seed=seed, temperature=0, extra_body=fields
        )
        return int(answer.usage.completion_tokens)

    with ThreadPoolExecutor(streams) as pool:
        list(pool.map(one, range(streams)))  # the grammar is compiled
        began = time.perf_counter()
        tokens = sum(pool.map(one, range(streams)))
        return tokens / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--binary", type=Path)
    parser.add_argument("--vocab", type=int, nargs="+", default=[2048, 151_936])
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    for vocab in arguments.vocab:
        with tempfile.TemporaryDirectory() as folder:
            model = Path(folder) / "model"
            write(Shape(hidden=256, layers=8, heads=8, kv_heads=4, mlp=768, vocab=vocab), model)
            fill(model, vocab)
            extra = ("--parallel", str(max(arguments.streams)))
            with LLM(str(model), binary=arguments.binary, extra_args=extra) as llm:
                for streams in arguments.streams:
                    found: dict[str, list[float]] = {name: [] for name in SCHEMAS}
                    for _ in range(arguments.rounds):
                        for name, schema in SCHEMAS.items():
                            found[name].append(speed(llm, schema, streams))
                    free = statistics.median(found["free"])
                    ratios = {
                        name: statistics.median(
                            held / base for held, base in zip(found[name], found["free"], strict=True)
                        )
                        for name in ("text", "record")
                    }
                    print(
                        f"vocabulary {vocab:>6}, {streams} streams: free {free:7.1f} tok/s, "
                        + ", ".join(f"{name} {ratio:.2f}x" for name, ratio in ratios.items()),
                        flush=True,
                    )


if __name__ == "__main__":
    main()
