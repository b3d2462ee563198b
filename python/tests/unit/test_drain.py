"""A pipe is emptied whatever comes through it, and what is kept is bounded."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from mlxcel import _drain
from mlxcel._drain import Drain


def drained(chunks: list[bytes], secret: str = "") -> tuple[str, list[str]]:
    """Tail and lines of a pipe through which these chunks went."""
    read, write = os.pipe()
    seen: list[str] = []
    drain = Drain(os.fdopen(read, "rb", buffering=0), name="mlxcel-test", secret=secret, on_line=seen.append)
    for chunk in chunks:
        os.write(write, chunk)
    os.close(write)
    drain.join(5)
    return drain.tail(), seen


@given(st.lists(st.binary(max_size=40).map(lambda raw: raw.replace(b"\x00", b"\n")), max_size=8))
def test_lines_do_not_depend_on_chunks(chunks: list[bytes]) -> None:
    assert drained(chunks) == drained([b"".join(chunks)])


def test_every_kind_of_line_end_and_a_last_line_without_one() -> None:
    assert drained([b"a\nb\r", b"\nc\r50%\r100%\n\nlast"])[1] == ["a", "b", "c", "50%", "100%", "last"]


def test_broken_utf8_is_shown_not_raised() -> None:
    assert drained([b"caf\xc3\xa9 \xff\n"])[0] == "café �"


def test_memory_is_bounded() -> None:
    tail, seen = drained([b"x" * 50_000] * 8)
    assert {len(line) for line in seen[:-1]} == {_drain._LINE_BYTES}
    assert sum(map(len, seen)) == 400_000
    tail, seen = drained([b"line\n" * 1000])
    assert len(seen) == 1000
    assert len(tail.splitlines()) == _drain._TAIL_LINES


def test_a_secret_is_blotted_out() -> None:
    assert drained([b"key=s3cret, again s3cret\n"], secret="s3cret") == (
        "key=***, again ***",
        ["key=***, again ***"],
    )
