"""Which mode a constructor is in, and what it says when its arguments make no sense."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from mlxcel import LLM, AsyncLLM, ManagedServer, MlxcelConfigError
from mlxcel._options import split_base_url

BOTH = pytest.mark.parametrize("client", [LLM, AsyncLLM])


@BOTH
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, r"no model and no server.*LLM\('mlxcel-tiny'\).*base_url="),
        ({"model": ""}, "path, a repo id"),
        ({"model": "a\0b"}, "path, a repo id"),
        ({"model": "m", "base_url": "http://h"}, r"LLM\('m'\) to start one, or LLM\(base_url=…\).*model=…"),
        ({"model": "m", "transport": object()}, "transport connects to one"),
        ({"model": "m", "http_client": object()}, "http_client connects to one"),
        ({"base_url": "http://h", "ctx_size": 5}, "ctx_size only mean something for a server"),
        ({"base_url": "http://h", "startup_timeout": 5.0}, "startup_timeout only"),
        ({"socket": "/s", "extra_args": ["--x"]}, "extra_args only"),
        ({"socket": "/s", "base_url": "http://h"}, "give one of them"),
        ({"socket": "/s", "transport": object()}, "socket and transport are different ways"),
        ({"base_url": "localhost:80"}, "full address such as"),
        ({"base_url": "/tmp/x.sock"}, "goes into socket="),
        ({"base_url": "http://h", "timeout": 0}, "timeout is a number of seconds above 0"),
        ({"base_url": "http://h", "timeout": float("nan")}, "timeout is a number"),
        ({"model": "m", "startup_timeout": -1.0}, "startup_timeout is a number"),
        ({"model": "m", "extra_args": "--flag"}, r"write \['--flag'\]"),
        ({"model": "m", "socket": "/tmp/s", "port": 1}, "not both"),
        ({"model": "m", "port": 70000}, "between 0 and 65535"),
        ({"model": "m", "api_key": "ключ"}, "printable ASCII"),
        ({"base_url": "http://h", "api_key": "key\n"}, "newline of its file"),
        ({"base_url": "http://h", "api_key": ""}, "printable ASCII"),
    ],
)
def test_contradictions(client: Any, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(MlxcelConfigError, match=says):
        client(**arguments)


@pytest.mark.parametrize("client", [LLM, AsyncLLM, ManagedServer])
def test_unknown_option_names_the_nearest(client: Any) -> None:
    with pytest.raises(
        TypeError, match=f"{client.__name__} has no option 'ctxsize'; did you mean 'ctx_size'"
    ):
        client("m", ctxsize=4096)
    with pytest.raises(TypeError, match="extra_args"):
        client("m", zzz=1)


@pytest.mark.parametrize("client", [LLM, AsyncLLM, ManagedServer])
def test_options_are_named(client: Any) -> None:
    with pytest.raises(TypeError, match="positional"):
        client("m", "http://h")


@pytest.mark.parametrize(
    ("url", "root", "v1"),
    [
        ("http://h:1", "http://h:1", "http://h:1/v1"),
        ("http://h:1/", "http://h:1", "http://h:1/v1"),
        ("http://h:1/v1", "http://h:1", "http://h:1/v1"),
        ("https://h/v1/", "https://h", "https://h/v1"),
        ("http://[::1]:8/v1", "http://[::1]:8", "http://[::1]:8/v1"),
        ("http://h/proxy/openai", "http://h/proxy/openai", "http://h/proxy/openai"),
    ],
)
def test_base_url(url: str, root: str, v1: str) -> None:
    assert split_base_url(url) == (root, v1)


def test_the_address_of_a_ready_made_client_is_used() -> None:
    seen = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(str(request.url))
        return httpx2.Response(200, json={"data": [{"id": "m"}]})

    with httpx2.Client(base_url="http://there:9/v1", transport=httpx2.MockTransport(answer)) as http_client:
        with LLM(http_client=http_client) as llm:
            assert llm.model == "m"
        assert not http_client.is_closed, "it is the caller's to close"
    assert seen == ["http://there:9/v1/models"]


def test_a_client_of_the_wrong_kind_is_refused() -> None:
    with pytest.raises(TypeError, match="http_client"):
        LLM(http_client=httpx2.AsyncClient())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="transport"):
        LLM(transport=httpx2.AsyncHTTPTransport())  # type: ignore[arg-type]
