"""Any JSON schema, a model of random weights, any temperature: what ends validates, in the real server."""

from __future__ import annotations

import concurrent.futures
import json
import shutil
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import jsonschema
import numpy as np
import openai
import pytest
from hypothesis import HealthCheck, given, settings

from mlxcel import LLM

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.e2e

TINY = Path(__file__).parents[3] / "tiny-model" / "mlxcel-tiny"
ASKED: list[dict[str, str]] = [{"role": "user", "content": "Say something."}]

# Added to the logits of a marker, so that one comes now and then.
LIKELIER = 6

# What a generated document says beside its type. Names and texts go beyond ASCII.
NAMES = ["a", "b", "größe", "日本", "a b", 'quote"d', "back\\slash", ""]
SCALARS = [None, True, 0, -7, 2.5, "x", "ü\n", "日"]


def random_weights(folder: Path) -> Path:
    """The built-in model with every weight drawn anew."""
    shutil.copytree(TINY, folder)
    file = folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    random = np.random.default_rng(0)
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = (8 + size + offset for offset in entry["data_offsets"])
        assert entry["dtype"] == "BF16"
        values = random.normal(0, 0.2, (end - begin) // 2).astype(np.float32)
        data[begin:end] = (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    file.write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def client(real_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    model = random_weights(tmp_path_factory.mktemp("random") / "model")
    with LLM(str(model), binary=real_binary, extra_args=("--parallel", "4")) as llm:
        yield llm.openai_client


def ask(client: openai.OpenAI, schema: Any, **fields: Any) -> Any:
    response_format = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}
    create: Any = client.chat.completions.create
    answer = create(model="m", messages=ASKED, response_format=response_format, **fields)
    return answer.choices[0]


def numbers(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    bound = st.integers(-20, 20)
    return st.fixed_dictionaries(
        {"type": st.just(kind)},
        optional={
            "minimum": bound,
            "maximum": st.integers(20, 60),
            "exclusiveMinimum": bound,
            "exclusiveMaximum": st.integers(21, 60),
            "multipleOf": st.sampled_from([1, 2, 3, 5] if kind == "integer" else [1, 2, 0.5]),
        },
    )


STRINGS = st.one_of(
    st.fixed_dictionaries(
        {"type": st.just("string")}, optional={"minLength": st.integers(0, 3), "maxLength": st.integers(3, 8)}
    ),
    st.sampled_from(["^[a-c]{1,4}$", "^x", "[0-9]{2}", "^(ja|nein)$", "ü+$"]).map(
        lambda pattern: {"type": "string", "pattern": pattern}
    ),
    st.sampled_from(["date", "uuid", "ipv4"]).map(lambda name: {"type": "string", "format": name}),
)
LEAVES = st.one_of(
    st.just(True),
    st.just({}),
    st.sampled_from(["null", "boolean"]).map(lambda kind: {"type": kind}),
    numbers("integer"),
    numbers("number"),
    STRINGS,
    st.lists(st.sampled_from(SCALARS), min_size=1, max_size=4).map(lambda values: {"enum": values}),
    st.sampled_from([*SCALARS, [1, {"a": []}], {"b": "c"}]).map(lambda value: {"const": value}),
    st.just({"type": ["string", "null"], "maxLength": 4}),
    st.sampled_from([{"$ref": "#/$defs/tree"}, {"$ref": "#/$defs/word"}]),
)


def arrays(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {"type": st.just("array"), "maxItems": st.integers(2, 4)},
        optional={
            "items": inner,
            "minItems": st.integers(0, 2),
            "prefixItems": st.lists(inner, min_size=1, max_size=2),
        },
    )


@st.composite
def objects(draw: st.DrawFn, inner: st.SearchStrategy[Any]) -> dict[str, Any]:
    properties = draw(st.dictionaries(st.sampled_from(NAMES), inner, max_size=4))
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    if properties:
        schema["required"] = draw(st.lists(st.sampled_from(sorted(properties)), unique=True))
    extra = draw(st.sampled_from(["closed", "typed", "patterns", "open"]))
    if extra == "closed":
        schema["additionalProperties"] = False
    elif extra == "typed":
        schema["additionalProperties"] = draw(inner)
    elif extra == "patterns":
        schema |= {"patternProperties": {"^n_": draw(inner)}, "additionalProperties": False}
    return schema


def combined(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    some = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        some.map(lambda options: {"anyOf": options}),
        some.map(lambda options: {"oneOf": options}),
        some.map(lambda parts: {"allOf": parts}),
    )


DOCUMENTS = st.recursive(
    LEAVES, lambda inner: st.one_of(arrays(inner), objects(inner), combined(inner)), max_leaves=6
)
DEFINITIONS: dict[str, Any] = {
    "word": {"type": "string", "pattern": "^[a-z]{1,3}$"},
    "tree": {
        "type": "object",
        "properties": {"leaf": {"type": "boolean"}, "next": {"$ref": "#/$defs/tree"}},
        "required": ["leaf"],
        "additionalProperties": False,
    },
}


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(schema=DOCUMENTS, temperature=st.sampled_from([0, 0.8, 1.5]), seed=st.integers(0, 99))
def test_whatever_ends_validates(client: openai.OpenAI, schema: Any, temperature: float, seed: int) -> None:
    if isinstance(schema, dict):
        schema = schema | {"$defs": DEFINITIONS}
    fields = {"temperature": temperature, "seed": seed}
    try:
        choice = ask(client, schema, max_tokens=120, **fields)
    except openai.BadRequestError as refusal:
        # What cannot be enforced, or has no value at all, is said.
        reason = refusal.message if refusal.param == "response_format" else ""
        if "cannot be enforced" not in reason and "invalid" not in reason:
            raise
        return
    text = choice.message.content or ""
    if choice.finish_reason == "stop":
        checker = jsonschema.FormatChecker(["date", "uuid", "ipv4"])
        jsonschema.Draft202012Validator(schema, format_checker=checker).validate(json.loads(text))
    else:
        assert choice.finish_reason == "length"
    # An output that is cut off is the beginning of the one that is not.
    short = ask(client, schema, max_tokens=9, **fields).message.content or ""
    assert text.startswith(short.rstrip("\ufffd"))


def test_forced_tokens_are_those_that_are_chosen_one_by_one(client: openai.OpenAI) -> None:
    """With logprobs every token is chosen; without them the forced ones are taken at once."""
    schema = {
        "type": "object",
        "properties": {
            "identification": {"enum": ["first kind", "second kind"]},
            "description": {"type": "string", "maxLength": 12},
            "constant": {"const": "Dies ist ein längerer, ganz fester Text."},
        },
        "required": ["identification", "description", "constant"],
        "additionalProperties": False,
    }
    for seed in range(6):
        fields: dict[str, Any] = {"temperature": 1.2, "seed": seed, "max_tokens": 150}
        fast = ask(client, schema, **fields)
        slow = ask(client, schema, logprobs=True, **fields)
        assert fast.message.content == slow.message.content
        assert fast.finish_reason == slow.finish_reason
        assert slow.logprobs.content
    # Streamed, and in company.
    create: Any = client.chat.completions.create
    response_format = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}

    def streamed(seed: int) -> str:
        body = {"model": "m", "messages": ASKED, "response_format": response_format, "stream": True}
        chunks = create(**body, temperature=1.2, seed=seed, max_tokens=150)
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        together = list(pool.map(streamed, range(6)))
    for seed, text in enumerate(together):
        alone = ask(client, schema, temperature=1.2, seed=seed, max_tokens=150)
        assert text == alone.message.content


@pytest.mark.parametrize("thinks", [False, True])
def test_a_call_that_begins_by_chance_validates(client: openai.OpenAI, thinks: bool) -> None:
    parameters = {
        "type": "object",
        "properties": {
            "colour": {"enum": ["red", "blue"]},
            "size": {"type": "integer", "minimum": 1, "maximum": 99},
        },
        "required": ["colour", "size"],
        "additionalProperties": False,
    }
    tool = {"type": "function", "function": {"name": "paint", "parameters": parameters}}
    tokens = json.loads((TINY / "tokenizer.json").read_text())["added_tokens"]
    ids = {token["content"]: token["id"] for token in tokens}
    likelier = {str(ids[marker]): LIKELIER for marker in ("<tool_call>", "</think>")}
    made = spoken = 0
    for seed in range(12):
        create: Any = client.chat.completions.create
        answer = create(
            model="m",
            messages=ASKED,
            tools=[tool],
            temperature=1.5,
            seed=seed,
            max_tokens=200,
            logit_bias=likelier,
            extra_body={"chat_template_kwargs": {"enable_thinking": thinks}},
        )
        (choice,) = answer.choices
        spoken += bool(choice.message.content)
        calls = choice.message.tool_calls or []
        # The last one may be cut off.
        whole = calls[:-1] if choice.finish_reason == "length" else calls
        made += len(whole)
        for call in whole:
            assert call.function.name == "paint"
            jsonschema.validate(json.loads(call.function.arguments), parameters)
    assert made
    assert spoken


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


HEAVY: dict[str, Any] = {
    "enum": {"enum": [f"value {number}" for number in range(12_000)]},
    "depth": nested(70),
    "repeats": {"type": "string", "pattern": "^a{1000000}$"},
    "repeated repeats": {"type": "string", "pattern": "^((a{1,900}){1,900}){1,900}$"},
    "options": {
        "anyOf": [{"type": "object", "properties": {f"p{n}": {"type": "string"}}} for n in range(3_000)]
    },
    "a reference to itself": {"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    "a chain of references": {
        "$defs": {str(n): {"anyOf": [{"type": "null"}, {"$ref": f"#/$defs/{n + 1}"}]} for n in range(2_000)}
        | {"2000": {"type": "null"}},
        "$ref": "#/$defs/0",
    },
    "products": {
        "allOf": [
            {"anyOf": [{"properties": {f"a{n}": {}}}, {"properties": {f"b{n}": {}}}]} for n in range(24)
        ]
    },
}


def test_heavy_schemas_hold_nobody_up(client: openai.OpenAI) -> None:
    """Each is answered or refused in time; meanwhile plain requests and known schemas are served."""
    known = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    ask(client, known, max_tokens=5)

    def heavy(name: str) -> str:
        try:
            return str(ask(client, HEAVY[name], max_tokens=3, temperature=0, timeout=100).finish_reason)
        except openai.BadRequestError as refusal:
            return refusal.message

    with concurrent.futures.ThreadPoolExecutor(len(HEAVY)) as pool:
        answers = {name: pool.submit(heavy, name) for name in HEAVY}
        while not all(answer.done() for answer in answers.values()):
            create: Any = client.chat.completions.create
            create(model="m", messages=ASKED, max_tokens=1, timeout=20)
            ask(client, known, max_tokens=1, timeout=20)
    for name, answer in answers.items():
        said = answer.result()
        refused = "complex" in said or "invalid" in said or "cannot be enforced" in said
        assert refused or said in ("length", "stop"), (name, said)
        assert refused or name not in ("depth", "a reference to itself"), (name, said)


def test_unsupported_keywords_are_named(client: openai.OpenAI) -> None:
    for keyword, schema in {
        "not": {"not": {"type": "null"}},
        "if": {"if": {}, "then": {}},
        "uniqueItems": {"type": "array", "uniqueItems": True},
        "contains": {"type": "array", "contains": {"type": "null"}},
        "dependentRequired": {"type": "object", "dependentRequired": {"a": ["b"]}},
        "propertyNames": {"type": "object", "propertyNames": {"enum": ["a"]}},
        "unevaluatedProperties": {"type": "object", "unevaluatedProperties": False},
        "format": {"type": "string", "format": "iri"},
        "pattern": {"type": "string", "pattern": "(?=a)b"},
        "$ref": {"$ref": "https://example.com/schema.json"},
    }.items():
        with pytest.raises(openai.BadRequestError) as caught:
            ask(client, {"type": "object", "properties": {"inner": schema}})
        assert caught.value.code == "unsupported_parameter"
        assert keyword in caught.value.message
