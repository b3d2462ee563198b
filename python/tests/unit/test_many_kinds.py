"""What is one prompt and what is many; the keywords of many."""

from __future__ import annotations

from typing import Any

import pytest

from mlxcel import MlxcelConfigError
from mlxcel._many import Kind, Many, is_message, is_token, width

MESSAGE = {"role": "user", "content": "hi"}


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ("text", Kind.ONE),
        ([1, 2, 3], Kind.ONE),
        ((1, 2), Kind.ONE),
        (["a", "b"], Kind.LIST),
        ([[1, 2], [3]], Kind.LIST),
        ([], Kind.LIST),
        ({"a": 1}.values(), Kind.ONE),
        ({"a": "b"}.values(), Kind.LIST),
        (iter(["a"]), Kind.LAZY),
        ((str(n) for n in range(3)), Kind.LAZY),
        (b"bytes", Kind.ONE),  # refused where the request is made
    ],
)
def test_prompts(content: Any, kind: Kind) -> None:
    assert Many().kind_of(content, is_token) is kind


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ("text", Kind.ONE),
        ([MESSAGE], Kind.ONE),
        ((MESSAGE, MESSAGE), Kind.ONE),
        ([[MESSAGE], [MESSAGE]], Kind.LIST),
        (["a", [MESSAGE]], Kind.LIST),
        ([], Kind.LIST),
        (MESSAGE, Kind.ONE),  # refused where the request is made
        (iter([[MESSAGE]]), Kind.LAZY),
    ],
)
def test_conversations(content: Any, kind: Kind) -> None:
    assert Many().kind_of(content, is_message) is kind


def test_what_is_neither_says_what_to_write() -> None:
    class Lines:
        def __iter__(self) -> Any:
            return iter(["a"])

    with pytest.raises(TypeError, match=r"list\(…\).*iter\(…\)"):
        Many().kind_of(Lines(), is_token)


@pytest.mark.parametrize(
    "options", [{"concurrency": 2}, {"sampling": [{}]}, {"return_exceptions": True}, {"progress": False}]
)
def test_keywords_for_many_with_one_prompt(options: dict[str, Any]) -> None:
    with pytest.raises(MlxcelConfigError, match="are for many prompts"):
        Many(**options).kind_of("text", is_token)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": True}, "concurrency"),
        ({"concurrency": 1.5}, "concurrency"),
        ({"sampling": {"temperature": 0}}, "keywords of the call"),
        ({"sampling": "greedy"}, "keywords of the call"),
        ({"sampling": 3}, "keywords of the call"),
    ],
)
def test_senseless_keywords(options: dict[str, Any], named: str) -> None:
    with pytest.raises(MlxcelConfigError, match=named):
        Many(**options)


def test_sampling_is_one_entry_a_prompt() -> None:
    with pytest.raises(MlxcelConfigError, match="1 entries for 2 prompts"):
        Many(sampling=[{}]).jobs_of_list(["a", "b"])
    with pytest.raises(MlxcelConfigError, match="not a int"):
        Many(sampling=[3]).jobs_of_list(["a"])  # type: ignore[list-item]


def test_width() -> None:
    assert width(1) == 4
    assert width(8) == 32
    assert width(10_000) == 256
    assert width(None) == 16
