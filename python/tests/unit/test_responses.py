"""Replies of good and of strange servers."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai._models import construct_type
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from mlxcel import (
    Finish,
    MlxcelResponseError,
    ReasoningDelta,
    Result,
    TextDelta,
    Timings,
    ToolCall,
    Usage,
    _responses,
)
from mlxcel._accumulate import Accumulator

USAGE = {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6}


def completion(**fields: Any) -> Any:
    return construct_type(type_=Completion, value=fields)


def chat(**fields: Any) -> Any:
    return construct_type(type_=ChatCompletion, value=fields)


def chunk(**fields: Any) -> Any:
    return construct_type(type_=ChatCompletionChunk, value=fields)


def completion_chunk(**choice: Any) -> Any:
    return completion(choices=[{"index": 0, "finish_reason": None, **choice}])


def test_completion() -> None:
    logprobs = {"tokens": ["a"], "token_logprobs": [-0.5], "top_logprobs": [{"a": -0.5}], "text_offset": [0]}
    reply = completion(
        choices=[{"text": "a", "index": 0, "finish_reason": "length", "logprobs": logprobs}],
        usage=USAGE,
        timings={"predicted_per_second": 100.0},
    )
    result = _responses.completion(reply)
    assert result == "a"
    assert isinstance(result, str)
    assert result.finish_reason == "length"
    assert result.usage is not None
    assert result.usage.total_tokens == 6
    assert result.timings == Timings(decode_tokens_per_second=100.0, raw={"predicted_per_second": 100.0})
    assert result.logprobs.token_logprobs == [-0.5]
    assert result.choices == [result]
    assert result.raw is reply
    assert result.parsed is None


def test_chat_with_reasoning_and_tool_calls() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": [call]}
    result = _responses.chat(chat(choices=[{"index": 0, "finish_reason": "tool_calls", "message": message}]))
    assert result == ""
    assert result.reasoning == "hm"
    assert result.tool_calls == [ToolCall("c1", "f", "{}")]


def test_text_in_parts() -> None:
    parts = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "a"}, {"text": "b"}]
    assert _responses.chat(chat(choices=[{"index": 0, "message": {"content": parts}}])) == "ab"
    assert Accumulator().add(chunk(choices=[{"index": 0, "delta": {"content": parts}}])) == [TextDelta("ab")]


def test_several_choices() -> None:
    texts = [{"text": t, "index": i, "finish_reason": "stop"} for i, t in enumerate("abc")]
    result = _responses.completion(completion(choices=texts))
    assert result == "a"
    assert result.choices == ["a", "b", "c"]
    assert result.choices[1].choices == ["b"]


@pytest.mark.parametrize("reply", [completion(), completion(choices=[]), completion(choices=None)])
def test_no_choices(reply: Any) -> None:
    with pytest.raises(MlxcelResponseError, match="no choices"):
        _responses.completion(reply)


def test_other_broken_replies() -> None:
    with pytest.raises(MlxcelResponseError, match="without text"):
        _responses.completion(completion(choices=[{"index": 0}]))
    with pytest.raises(MlxcelResponseError, match="without a message"):
        _responses.chat(chat(choices=[{"index": 0}]))
    odd: list[dict[str, Any]] = [
        {"content": 5},
        {"content": "x", "tool_calls": "f()"},
        {"reasoning_content": {}},
    ]
    for message in odd:
        with pytest.raises(MlxcelResponseError, match="that is no"):
            _responses.chat(chat(choices=[{"index": 0, "message": message}]))
        with pytest.raises(MlxcelResponseError, match="that is no"):
            Accumulator().add(chunk(choices=[{"index": 0, "delta": message}]))
    with pytest.raises(MlxcelResponseError, match="not JSON but begins '<html>"):
        _responses.chat("<html>hello</html>")
    with pytest.raises(MlxcelResponseError, match="list of models"):
        _responses.models("<html>")
    for body in (None, {}, {"tokens": "x"}, {"tokens": ["x"]}):
        with pytest.raises(MlxcelResponseError, match="/tokenize"):
            _responses.tokens_of(body)
    with pytest.raises(MlxcelResponseError, match="/detokenize"):
        _responses.text_of({"tokens": []})


def test_a_result_is_a_string_in_every_way() -> None:
    result = _responses.completion(
        completion(choices=[{"text": "hello", "index": 0, "finish_reason": "stop"}], usage=USAGE)
    )
    assert result[1:3] == "el"
    assert result + "!" == "hello!"
    assert hash(result) == hash("hello")
    assert f"{result:>7}" == "  hello"
    for other in (pickle.loads(pickle.dumps(result)), copy.copy(result), copy.deepcopy(result)):
        assert other == result
        assert type(other) is Result
        assert other.usage == result.usage
        assert other.finish_reason == "stop"


def test_accumulated_chat() -> None:
    gathered = Accumulator()
    pieces: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "delta": {"role": "assistant", "reasoning_content": "h"}}]},
        {"choices": [{"index": 0, "delta": {"reasoning_content": "m"}}]},
        {"choices": [{"index": 0, "delta": {"content": "Hel"}, "logprobs": {"content": [{"token": "Hel"}]}}]},
        {"choices": [{"index": 1, "delta": {"content": "other"}}]},
        {"choices": [{"index": 0, "delta": {"content": "lo"}, "logprobs": {"content": [{"token": "lo"}]}}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {"choices": [{"index": 1, "delta": {}, "finish_reason": "length"}]},
        {"choices": [], "usage": USAGE, "timings": {"x": 1}},
    ]
    assert [event for piece in pieces for event in gathered.add(chunk(**piece))] == [
        ReasoningDelta("h"),
        ReasoningDelta("m"),
        TextDelta("Hel"),
        TextDelta("other", 1),
        TextDelta("lo"),
        Finish("stop"),
        Finish("length", 1),
    ]
    assert gathered.end() == [Usage(4, 2, 6)]
    result = gathered.result()
    assert result == "Hello"
    assert result.reasoning == "hm"
    assert result.choices == ["Hello", "other"]
    assert [choice.finish_reason for choice in result.choices] == ["stop", "length"]
    assert [entry.token for entry in result.logprobs.content] == ["Hel", "lo"]
    assert result.usage is not None
    assert result.usage.prompt_tokens == 4
    assert result.timings == Timings(raw={"x": 1})


def test_accumulated_completion_logprobs() -> None:
    gathered = Accumulator()
    for token in "ab":
        gathered.add(completion_chunk(text=token, logprobs={"tokens": [token], "token_logprobs": [-1.0]}))
    gathered.add(completion_chunk(text="", finish_reason="stop"))
    assert gathered.result().logprobs.tokens == ["a", "b"]
    assert gathered.result().logprobs.token_logprobs == [-1.0, -1.0]


def test_accumulated_tool_calls() -> None:
    gathered = Accumulator()
    deltas: list[dict[str, Any]] = [
        {"index": 0, "id": "c1", "type": "function", "function": {"name": "add", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"a": '}},
        {"index": 1, "id": "c2", "type": "function", "function": {"name": "now", "arguments": {"tz": "UTC"}}},
        {"index": 0, "function": {"arguments": "1}"}},
    ]
    for delta in deltas:
        gathered.add(chunk(choices=[{"index": 0, "delta": {"tool_calls": [delta]}}]))
    gathered.add(chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]))
    first, second = gathered.result().tool_calls
    assert first == ToolCall("c1", "add", '{"a": 1}')
    assert second == ToolCall("c2", "now", '{"tz": "UTC"}')


def test_a_stream_without_a_finish_is_cut_off() -> None:
    gathered = Accumulator()
    with pytest.raises(MlxcelResponseError, match="ended before"):
        gathered.result()
    gathered.add(completion_chunk(text="half"))
    with pytest.raises(MlxcelResponseError) as caught:
        gathered.result()
    assert caught.value.text == "half"


@given(st.text(), st.integers(1, 7))
def test_any_cut_of_a_text_gives_the_same_result(text: str, size: int) -> None:
    gathered = Accumulator()
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    events = [event for piece in pieces for event in gathered.add(completion_chunk(text=piece))]
    assert gathered.add(completion_chunk(text="", finish_reason="stop")) == [Finish("stop")]
    assert (
        "".join(event.text for event in events if isinstance(event, TextDelta))
        == gathered.text
        == gathered.result()
        == text
    )
