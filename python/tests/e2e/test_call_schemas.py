"""Random schemas: whatever the real server calls, in each format, jsonschema accepts."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from mlxcel import LLM

if TYPE_CHECKING:
    from pathlib import Path

    import openai

pytestmark = pytest.mark.e2e

SCHEMAS = 25
ASK = [{"role": "user", "content": "Use the tool to add 1 and 2."}]
TEXTS = ["a", "x y", "é", "it's", '"q"', "back\\slash", "<", "true", "None", "1"]
PATTERNS = ["^[a-z]{1,4}$", "^\\d{2,3}$", "[0-9]", "^ab?", "x$", "(a|b){2}", "^a/b+$"]


class Schemas:
    """Draws schemas of a function's parameters, nested twice at the most."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)

    def parameters(self) -> dict[str, Any]:
        return self.object(2) | {"$defs": {"p": self.object(1), "q": self.leaf()}}

    def object(self, depth: int) -> dict[str, Any]:
        names = self.draw.sample(["alpha", "b_2", "c", "Déjà", "items", "n1"], self.draw.randrange(4))
        return {
            "type": "object",
            "properties": {name: self.value(depth) for name in names},
            "required": [name for name in names if self.draw.random() < 0.6],
            "additionalProperties": False,
        }

    def value(self, depth: int) -> dict[str, Any]:
        if depth == 0:
            return self.leaf()
        inner = depth - 1
        kinds: list[Any] = [
            self.leaf,
            lambda: {
                "type": "array",
                "items": self.value(inner),
                "minItems": self.draw.randrange(2),
                "maxItems": self.draw.randrange(1, 3),
            },
            lambda: self.object(inner),
            lambda: {"anyOf": [self.value(inner), {"type": "null"}], "title": "T"},
            lambda: {"$ref": "#/$defs/" + self.draw.choice("pq")},
        ]
        made: dict[str, Any] = self.draw.choice(kinds)()
        return made

    def leaf(self) -> dict[str, Any]:
        draw = self.draw
        return draw.choice(
            [
                {"type": "string", "maxLength": draw.randrange(1, 9)},
                {"type": "string", "minLength": 2, "maxLength": 6},
                {"type": "string", "pattern": draw.choice(PATTERNS)},
                {"type": "string", "format": draw.choice(["date", "uuid", "time", "ipv4"])},
                {"type": "string", "enum": draw.sample(TEXTS, 3)},
                {"enum": [*draw.sample(TEXTS, 2), draw.choice([1, True, None, 2.5])]},
                {"const": draw.choice([*TEXTS, None, False, 7, ["a", None], {"k": True}])},
                {"type": "integer", "minimum": -10, "maximum": draw.randrange(1000)},
                {"type": "number", "minimum": 0, "maximum": 10},
                {"type": "boolean"},
                {"type": ["boolean", "null"]},
            ]
        )


@pytest.mark.parametrize("parser", ["hermes", "pythonic", "qwen3_coder", "llama3_json"])
def test_calls_validate_whatever_the_schema(real_binary: Path, parser: str) -> None:
    ended = 0
    with LLM("mlxcel-tiny", binary=real_binary, extra_args=("--tool-call-parser", parser)) as llm:
        client: openai.OpenAI = llm.openai_client
        for seed in range(SCHEMAS):
            parameters = Schemas(seed).parameters()
            tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
            create: Any = client.chat.completions.create
            (choice,) = create(
                model=llm.model,
                messages=ASK,
                tools=[tool],
                tool_choice="required",
                parallel_tool_calls=False,
                temperature=1.5,
                seed=seed,
                max_tokens=200,
            ).choices
            if choice.finish_reason == "length":
                continue
            ended += 1
            (call,) = choice.message.tool_calls
            jsonschema.validate(json.loads(call.function.arguments), parameters)
    assert ended > SCHEMAS / 2
