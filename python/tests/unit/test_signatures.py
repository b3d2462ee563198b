"""`LLM` and `AsyncLLM` are one interface, written twice."""

from __future__ import annotations

import inspect

import pytest

from mlxcel import LLM, AsyncLLM, ManagedServer

ASYNC_ONLY = {"ready"}
SHARED = sorted(name for name in dir(LLM) if not name.startswith("_"))


def same_type(annotation: str) -> str:
    """An annotation with the async spelling taken off."""
    return annotation.replace("Async", "")


def test_same_public_names() -> None:
    names = {name for name in dir(AsyncLLM) if not name.startswith("_")}
    assert names - ASYNC_ONLY == set(SHARED)


@pytest.mark.parametrize("name", SHARED)
def test_same_signature(name: str) -> None:
    one, other = inspect.getattr_static(LLM, name), inspect.getattr_static(AsyncLLM, name)
    assert type(one) is type(other)
    if isinstance(one, property):
        one, other = one.fget, other.fget
    first, second = inspect.signature(one), inspect.signature(other)
    assert list(first.parameters.values()) == list(second.parameters.values())
    assert first.return_annotation == same_type(second.return_annotation)


@pytest.mark.parametrize("name", ["generate", "chat", "models", "tokenize", "detokenize", "close", "ready"])
def test_what_waits_is_a_coroutine(name: str) -> None:
    assert inspect.iscoroutinefunction(getattr(AsyncLLM, name))


@pytest.mark.parametrize("name", ["stream", "chat_stream"])
def test_streams_are_opened_without_await(name: str) -> None:
    assert not inspect.iscoroutinefunction(getattr(AsyncLLM, name))


def test_same_constructor_with_named_options() -> None:
    signature = inspect.signature(LLM)
    assert signature == inspect.signature(AsyncLLM)
    model, *options = signature.parameters.values()
    assert model.name == "model"
    assert model.default is None
    assert {option.kind for option in options} == {inspect.Parameter.KEYWORD_ONLY}


def test_the_server_takes_the_client_s_options() -> None:
    """Whatever starts a server can be said in either place, with the same default."""
    client, server = inspect.signature(LLM).parameters, inspect.signature(ManagedServer).parameters
    only_client = {
        "share",
        "idle_timeout",
        "tool_protocol",
        "base_url",
        "socket",
        "transport",
        "http_client",
        "timeout",
        "extra_headers",
        "verify",
    }
    assert set(client) - only_client == set(server) - {"socket_path"}
    for name in set(server) - {"socket_path", "model"}:
        assert client[name].default == server[name].default, name


def test_context_managers() -> None:
    assert hasattr(LLM, "__enter__")
    assert hasattr(LLM, "__exit__")
    assert hasattr(AsyncLLM, "__aenter__")
    assert hasattr(AsyncLLM, "__aexit__")
