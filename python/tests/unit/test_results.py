"""The string that an answer is, and everything it carries."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlxcel import MlxcelResponseError, MlxcelToolArgumentsError, Result, Timings, ToolCall, Usage
from mlxcel._measures import timings_of, usage_of
from mlxcel._tool_calls import Fragments, argument_text, tool_calls_of

CALL = ToolCall("c1", "add", '{"a": 1, "b": "x"}')
FULL = Result(
    "hello",
    usage=Usage(4, 2, 6, cached_tokens=3),
    finish_reason="stop",
    timings=Timings(ttft=0.5, raw={"prompt_ms": 500}),
    reasoning="hm",
    tool_calls=[CALL],
).with_others([Result("other", finish_reason="length")])


@pytest.mark.parametrize(
    "other", [pickle.loads(pickle.dumps(FULL)), copy.copy(FULL), copy.deepcopy(FULL)], ids=["p", "c", "d"]
)
def test_it_travels(other: Result) -> None:
    assert other == FULL
    assert type(other) is Result
    assert vars(other) == vars(FULL)
    assert other.choices == ["hello", "other"]
    assert other.choices[1].finish_reason == "length"


def test_it_is_a_string_in_every_way() -> None:
    assert FULL == "hello"
    assert hash(FULL) == hash("hello")
    assert "hello" in {FULL, "other"}
    assert FULL[1:3] == "el"
    assert FULL + "!" == "hello!"
    assert f"{FULL:>7}" == "  hello"
    assert "-".join([FULL, FULL]) == "hello-hello"
    assert json.dumps(FULL) == '"hello"'
    assert type(str(FULL)) is str
    assert sorted([FULL, Result("a")]) == ["a", "hello"]


def test_a_message_to_go_on_with() -> None:
    assert Result("hi").as_message() == {"role": "assistant", "content": "hi"}
    message = Result("", reasoning="hm", tool_calls=[CALL]).as_message()
    function = {"name": "add", "arguments": CALL.raw}
    calls = [{"id": "c1", "type": "function", "function": function}]
    assert message == {
        "role": "assistant",
        "content": None,
        "reasoning_content": "hm",
        "tool_calls": calls,
    }
    assert tool_calls_of(message["tool_calls"]) == [CALL]


def test_a_line() -> None:
    assert repr(Result("it's\n")) == repr("it's\n")
    assert repr(Result("", tool_calls=[CALL])) == "<Result '', tool_calls=[add(a=1, b='x')]>"
    assert repr(Result("", refusal="no")) == "<Result '', refusal='no'>"


def test_a_terminal() -> None:
    from IPython.lib import pretty as ipython

    pretty: Any = ipython.pretty
    assert pretty(Result("# Title\ntext")) == "# Title\ntext"
    assert pretty(Result("")) == "''"
    shown = pretty(Result("42", reasoning="a\nb", tool_calls=[CALL], finish_reason="length"))
    assert shown.splitlines() == [
        "[a]",
        "[b]",
        "42",
        "call add(a=1, b='x')",
        "(length: the answer is cut off)",
    ]


def test_a_notebook() -> None:
    from IPython.core.formatters import DisplayFormatter

    formats, _ = DisplayFormatter().format(Result("# Title"))  # type: ignore[no-untyped-call]
    assert formats["text/markdown"] == "# Title"
    assert formats["text/plain"] == "# Title"
    tricky = ToolCall("1", "f", '{"a": "```"}')
    shown = Result("x", reasoning="<b>", tool_calls=[tricky], finish_reason="length")._repr_markdown_()
    assert "&lt;b&gt;" in shown
    assert '````json\n{"a": "```"}\n````' in shown
    assert "cut off" in shown
    assert Result("")._repr_markdown_()


@pytest.mark.parametrize(
    "raw",
    [
        *("", " ", "{", '{"a": 1', "null", "[]", '"{}"', "5", "true", '{"a": NaN}', "{} {}", "{'a': 1}"),
        "[" * 100_000,
        "1" * 5000,
    ],
    ids=lambda raw: raw[:8],
)
def test_malformed_arguments_are_never_an_empty_dict(raw: str) -> None:
    call = ToolCall("c1", "f", raw)
    assert not call.valid
    with pytest.raises(MlxcelToolArgumentsError, match="'f'") as caught:
        _ = call.arguments
    assert (caught.value.raw, caught.value.name, caught.value.id, caught.value.text) == (raw, "f", "c1", raw)
    assert "malformed" in str(call)


def test_arguments() -> None:
    assert CALL.valid
    assert CALL.arguments == {"a": 1, "b": "x"}
    CALL.arguments["a"] = 2
    assert CALL.arguments["a"] == 1
    assert CALL.raw == '{"a": 1, "b": "x"}'


def test_an_argument_object_is_taken_whole() -> None:
    given: list[Any] = [{"id": "c", "function": {"name": "f", "arguments": {"town": "Zürich"}}}]
    (call,) = tool_calls_of(given)
    assert call == ToolCall("c", "f", '{"town": "Zürich"}')
    assert tool_calls_of([{"function": {"name": "f", "arguments": None}}]) == [ToolCall("", "f", "")]
    assert tool_calls_of([{"id": "c", "custom": {"name": "g", "input": "free text"}}]) == [
        ToolCall("c", "g", "free text")
    ]
    assert tool_calls_of([]) == []


@pytest.mark.parametrize(("fragment", "text"), [(None, ""), ("a", "a"), ({"a": 1}, '{"a": 1}'), (5, "5")])
def test_no_fragment_is_dropped(fragment: Any, text: str) -> None:
    assert argument_text(fragment) == text


def fragments(*deltas: dict[str, Any]) -> list[ToolCall]:
    gathered = Fragments()
    for delta in deltas:
        gathered.add(delta)
    return gathered.calls()


def piece(arguments: Any, **more: Any) -> dict[str, Any]:
    name = more.pop("name", None)
    return {"function": {"name": name, "arguments": arguments}, **more}


def test_fragments_of_several_kinds_of_servers() -> None:
    two = [ToolCall("a", "f", '{"x": 1}'), ToolCall("b", "g", "{}")]
    interleaved = fragments(
        piece('{"x"', index=0, id="a", name="f"),
        piece("", index=1, id="b", name="g"),
        piece(": 1}", index=0),
        piece("{}", index=1),
    )
    assert interleaved == two
    all_the_same_index = fragments(
        piece('{"x": 1}', index=0, id="a", name="f"), piece("{}", index=0, id="b", name="g")
    )
    assert all_the_same_index == two
    no_index = fragments(piece('{"x": ', id="a", name="f"), piece("1}"), piece({}, id="b", name="g"))
    assert no_index == two
    number_between = fragments(piece('{"x": ', index=0, id="a", name="f"), piece(1, index=0))
    assert number_between == [ToolCall("a", "f", '{"x": 1')]
    assert fragments(piece("}")) == [ToolCall("", "", "}")]


@given(st.dictionaries(st.text(), st.integers() | st.text()), st.integers(1, 5))
def test_any_cut_of_arguments_gives_the_same_call(arguments: dict[str, Any], size: int) -> None:
    raw = json.dumps(arguments)
    pieces = [piece(raw[start : start + size], index=0) for start in range(0, len(raw), size)]
    (call,) = fragments(piece("", index=0, id="c", name="f"), *pieces)
    assert call.arguments == arguments


def test_usage() -> None:
    counts = {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6}
    details = {"prompt_tokens_details": {"cached_tokens": 3}}
    reasoning = {"completion_tokens_details": {"reasoning_tokens": 1}}
    assert usage_of({"usage": counts}) == Usage(4, 2, 6)
    assert usage_of({"usage": counts | details | reasoning}) == Usage(4, 2, 6, 3, 1)
    assert usage_of({"usage": {"prompt_tokens": 4, "completion_tokens": "2"}}) == Usage(4, 0, 4)
    assert usage_of({"usage": None}) is None
    assert usage_of({}) is None
    assert Usage(1, 2, 3) + Usage(4, 5, 9, 2) == Usage(5, 7, 12, 2)
    assert sum([Usage(1, 2, 3, 1), Usage(1, 2, 3, 4)], Usage()) == Usage(2, 4, 6, 5)


def test_timings() -> None:
    sent = {"prompt_ms": 200, "queued_ms": 50.0, "prompt_per_second": 100.0, "predicted_per_second": 30}
    timings = timings_of({"timings": sent})
    assert timings is not None
    assert timings.ttft == pytest.approx(0.25)
    assert timings.prefill_tokens_per_second == 100.0
    assert timings.decode_tokens_per_second == 30.0
    assert timings.raw == sent
    odd = {"prompt_ms": None, "prompt_per_second": float("nan"), "predicted_per_second": True}
    assert timings_of({"timings": odd}) == Timings(raw=odd)
    assert timings_of({"timings": 5}) is None
    assert Result("x").timings == Timings()


def test_errors_of_a_call_are_also_what_one_would_catch() -> None:
    assert issubclass(MlxcelToolArgumentsError, MlxcelResponseError)
    assert issubclass(MlxcelToolArgumentsError, ValueError)
