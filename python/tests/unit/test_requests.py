"""Parameters of a call, and where they end up in the request."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlxcel import LLM, _requests
from mlxcel.testing import FixtureServer

MESSAGES = [{"role": "user", "content": "hi"}]


def completion(**params: Any) -> dict[str, Any]:
    return _requests.completion("p", "m", params, stream=False)


def chat(**params: Any) -> dict[str, Any]:
    return _requests.chat("hi", "m", params, stream=False)


def test_minimal() -> None:
    assert completion() == {"model": "m", "prompt": "p"}
    assert chat() == {"model": "m", "messages": MESSAGES}


def test_openai_fields_go_to_the_top_and_others_into_extra_body() -> None:
    request = completion(temperature=0.5, top_k=3, min_p=0.1, dry_multiplier=1, brand_new=True)
    assert request["temperature"] == 0.5
    assert request["extra_body"] == {"top_k": 3, "min_p": 0.1, "dry_multiplier": 1, "brand_new": True}


def test_a_slip_is_sent_with_a_warning_in_the_line_of_the_caller() -> None:
    with FixtureServer("x") as server, LLM(base_url=server.base_url) as llm:
        with pytest.warns(UserWarning, match="temprature=.* was temperature= meant") as caught:
            llm.chat("p", temprature=0)
        assert caught[0].filename == __file__
        assert server.requests[-1].body["temprature"] == 0
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            llm.chat("p", top_k=3, min_tokens=1, stop_token_ids=[3], num_ctx=5, seeds=[1])


def test_response_format() -> None:
    form = {"type": "json_object"}
    assert chat(response_format=form)["response_format"] == form
    assert completion(response_format=form)["extra_body"] == {"response_format": form}


def test_a_caller_s_extra_body_wins() -> None:
    request = chat(top_k=3, extra_body={"top_k": 4, "temperature": 9})
    assert request["extra_body"] == {"top_k": 4, "temperature": 9}


def test_none_leaves_a_field_to_the_server() -> None:
    assert chat(temperature=None, top_k=None) == {"model": "m", "messages": MESSAGES}


def test_stream_asks_for_usage_unless_told_otherwise() -> None:
    assert _requests.chat("hi", "m", {}, stream=True)["stream_options"] == {"include_usage": True}
    own: dict[str, Any] = {"stream_options": {"include_usage": False}}
    assert _requests.chat("hi", "m", own, stream=True)["stream_options"] == {"include_usage": False}
    assert "stream_options" not in chat()


@pytest.mark.parametrize("name", ["stream", "prompt", "messages"])
def test_misplaced_parameters(name: str) -> None:
    with pytest.raises(TypeError):
        chat(**{name: True})


def test_prompts() -> None:
    assert _requests.completion((1, 2), "m", {}, stream=False)["prompt"] == [1, 2]
    for wrong in (["a", "b"], b"bytes", [1, "a"]):
        with pytest.raises(TypeError, match="a list of token ids"):
            _requests.completion(wrong, "m", {}, stream=False)  # type: ignore[arg-type]


def test_conversations() -> None:
    assert _requests.chat(tuple(MESSAGES), "m", {}, stream=False)["messages"] == MESSAGES
    with pytest.raises(TypeError, match="'role': 'user'"):
        _requests.chat(["hi"], "m", {}, stream=False)  # type: ignore[list-item]


def test_the_sdk_takes_every_field_we_put_at_the_top() -> None:
    client = openai.OpenAI(api_key="x")
    assert set(inspect.signature(client.completions.create).parameters) >= _requests.COMPLETION_FIELDS
    assert set(inspect.signature(client.chat.completions.create).parameters) >= _requests.CHAT_FIELDS
    client.close()


@given(
    st.dictionaries(
        st.text(min_size=1).filter(lambda name: name not in {"stream", "prompt", "messages", "model"}),
        st.integers(),
        max_size=8,
    ).filter(lambda params: "extra_body" not in params)
)
def test_no_parameter_is_lost(params: dict[str, Any]) -> None:
    request = _requests.chat("hi", "m", params, stream=False)
    sent = {**request, **request.get("extra_body", {})}
    assert {name: sent[name] for name in params} == params
