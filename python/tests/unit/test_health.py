"""What a server's word, and its work, are taken for."""

from __future__ import annotations

import errno
import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from mlxcel import MlxcelServerError
from mlxcel._activity import Activity, clock_seconds
from mlxcel._facts import memory, throughput
from mlxcel._health import Health, wait_until_ready
from mlxcel._probe import Address, Probe, _parse

if TYPE_CHECKING:
    from collections.abc import Callable


def test_health_is_read_with_what_there_is() -> None:
    full = {"stage": "download", "progress": 0.5, "bytes_done": 5, "bytes_total": 10}
    assert Health.read(503, full) == Health(False, "download", 0.5, 5, 10)
    assert Health.read(200, {"status": "ok"}) == Health(ready=True)
    assert Health.read(503, None) == Health()
    assert Health.read(503, {"stage": 3, "progress": "half", "bytes_done": True}) == Health()
    assert Health.read(503, {"progress": float("inf"), "bytes_total": float("nan")}) == Health()
    assert not Health.read(503, {"status": "starting"}).tells
    assert Health.read(503, {"stage": "weights"}).tells


class Waiting:
    """A server that loads for ever."""

    listening = "unix:/s"
    announces = True

    def __init__(self) -> None:
        self.news = threading.Event()

    def call_at_exit(self, callback: Callable[[], None]) -> None:
        pass

    def poll(self) -> None:
        return None

    def stderr_tail(self, *, final: bool = False) -> str:
        return ""

    def activity(self) -> Activity:
        return Activity(0.0, 0, 0)


def test_a_process_without_descriptors_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(Probe, "get", full)
    with pytest.raises(MlxcelServerError, match=r"Too many open files.*ulimit -n"):
        wait_until_ready(Waiting(), Probe(Address(), "key"), timeout=600, private=True)


@pytest.mark.parametrize(
    ("more", "seconds", "advanced"),
    [
        (Activity(0.0, 0, 0), 1.0, False),
        (Activity(0.0, 0, 1), 30.0, True),  # a line of output
        (Activity(0.0, 1 << 16, 0), 30.0, True),  # 64 KiB from the disk
        (Activity(0.0, 100, 0), 30.0, False),  # a timer's wakeups
        (Activity(0.7, 0, 0), 30.0, True),
        (Activity(0.1, 0, 0), 30.0, False),
        (Activity(0.03, 0, 0), 0.1, False),  # what the kernel's clock cannot tell from nothing
    ],
)
def test_work_and_waiting_are_told_apart(more: Activity, seconds: float, *, advanced: bool) -> None:
    start = Activity(5.0, 5, 5)
    now = Activity(start.cpu + more.cpu, start.io + more.io, start.output + more.output)
    assert now.advanced(start, seconds) is advanced


def test_our_own_work_is_seen() -> None:
    before = Activity.of(os.getpid(), 0)
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass
    assert Activity.of(os.getpid(), 0).advanced(before, 0.5)
    assert Activity.of(2**22 + 1, 3) == Activity(0.0, 0, 3), "no such process"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0:00.03", 0.03),
        ("1:02,50", 62.5),
        ("01:00:00", 3600),
        ("2-03:04:05", 183845),
        ("", 0),
        ("ps: no", 0),
    ],
)
def test_the_times_of_ps(text: str, seconds: float) -> None:
    assert clock_seconds(text) == seconds


def test_answers_in_http() -> None:
    assert _parse(b'HTTP/1.1 200 OK\r\nA: b\r\n\r\n{"a": 1}') == (200, {"a": 1})
    assert _parse(b"HTTP/1.0 503 No\r\n\r\n<html>") == (503, None)
    assert _parse(b"HTTP/1.0 200 OK\r\n\r\n" + b"[" * 500_000) == (200, None)
    for wrong in (b"", b"HTTP/1.1 200 OK\r\n", b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n"):
        with pytest.raises(ConnectionError):
            _parse(wrong)


def test_facts_of_servers_that_tell_less() -> None:
    nothing: list[object] = [None, [], {}, {"memory": None, "throughput": 3}]
    for props in nothing:
        assert memory(props) is None
        assert throughput(props) is None
    partial = memory({"memory": {"rss_bytes": 5}})
    assert partial is not None
    assert (partial.rss_bytes, partial.peak_bytes) == (5, 0)
