"""`python -m mlxcel batch`: records, resuming after SIGKILL, and what is wrong with a line."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from mlxcel.testing import Exchange, FixtureServer
from support import eventually

if TYPE_CHECKING:
    from pathlib import Path

LINES = 120


def command(given: Path, out: Path, *where: str) -> list[str]:
    return [sys.executable, "-m", "mlxcel", "batch", str(given), str(out), *where]


def run(given: Path, out: Path, *where: str) -> tuple[int, str]:
    done = subprocess.run(
        command(given, out, *where), capture_output=True, text=True, timeout=300, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stderr


def write(path: Path, *lines: Any) -> None:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def echo(exchange: Exchange) -> None:
    """Answers with the prompt, in some milliseconds; refuses negative temperatures."""
    if exchange.path == "/props":
        exchange.json(200, {"total_slots": 4})
        return
    body = exchange.body
    if body.get("temperature", 0) < 0:
        exchange.json(400, {"error": {"message": "temperature is negative", "code": "invalid_value"}})
        return
    time.sleep(random.uniform(0.002, 0.02))
    exchange.whole(f"{body['messages'][-1]['content'] if 'messages' in body else body['prompt']}!")


def test_records(tmp_path: Path) -> None:
    given, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write(
        given,
        {"prompt": "one", "id": "a", "max_tokens": 3, "top_k": 5},
        {"messages": [{"role": "user", "content": "two ☕"}], "id": 7},
        "",
        {"messages": "three"},
        {"prompt": [1, 2]},
    )
    with FixtureServer(echo) as server:
        status, told = run(given, out, "--base-url", server.base_url)
        assert (status, told.splitlines()[-1]) == (0, "4 lines are answered, 0 are errors")
        bodies = [request.body for request in server.requests if request.body]
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    rest = {"finish_reason": "stop", "usage": usage}
    assert read(out) == [
        {"line": 1, "text": "one!", "id": "a", **rest},
        {"line": 2, "text": "two ☕!", "id": 7, **rest},
        {"line": 4, "text": "three!", **rest},
        {"line": 5, "text": "[1, 2]!", **rest},
    ]
    assert {"prompt": "one", "model": "m", "max_tokens": 3, "top_k": 5} in bodies


WRONG = [
    ("{not json", "not JSON"),
    ("[1]", "a line is a JSON object"),
    ('{"id": 1}', "either a prompt or messages"),
    ('{"prompt": "a", "messages": "b"}', "either a prompt or messages"),
    ('{"prompt": ["a", "b"]}', "one prompt a line"),
    ('{"prompt": [true]}', "one prompt a line"),
    ('{"messages": [1]}', "list of objects"),
    ('{"prompt": "a", "stream": true}', "stream is no field"),
    ('{"prompt": "a", "extra_headers": {}}', "extra_headers is no field"),
    ('{"prompt": "a", "model": 3}', "model is a string"),
    ('{"prompt": "a", "temperature": NaN}', "NaN is no number"),
    ("[" * 100_000, "not JSON"),
    ('{"id": "mine", "prompt": "a", "temperature": -1}', "temperature is negative"),
    ('{"prompt": "a", "model": "another"}', "does not serve 'another'"),
    ('{"prompt": "a", "response_format": "json"}', "response_format is a type or a JSON schema"),
]


def test_malformed_lines_are_records(tmp_path: Path) -> None:
    given, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    good = {"prompt": "good"}
    write(given, good, *(text for text, _ in WRONG))
    with given.open("ab") as file:
        file.write(b'{"prompt": "\xff"}\n' + b'{"prompt": "\\ud800"}\n' + b'{"prompt": "last"}')
    with FixtureServer(echo) as server:
        status, told = run(given, out, "--base-url", server.base_url)
    assert (status, told.splitlines()[-1]) == (3, f"2 lines are answered, {len(WRONG) + 2} are errors")
    records = read(out)
    assert [record["line"] for record in records] == list(range(1, len(WRONG) + 5))
    for (_, message), record in zip(WRONG, records[1:], strict=False):
        assert message in record["error"]["message"]
        assert record["error"]["message"].startswith(f"line {record['line']}: ")
    refused = records[13]
    assert refused["id"] == "mine"
    assert refused["error"]["type"] == "BadRequestError"
    assert (refused["error"]["status"], refused["error"]["code"]) == (400, "invalid_value")
    assert records[1]["error"]["type"] == "malformed_line"
    assert "error" in records[-2]
    assert "error" in records[-3]
    assert records[-1]["text"] == "last!"


def test_it_goes_on_after_sigkill(tmp_path: Path) -> None:
    """Killed again and again at random moments, it answers each line exactly once, in order."""
    given, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write(given, *({"prompt": f"prompt {number}", "id": number} for number in range(LINES)))
    kills = 0
    with FixtureServer(echo) as server:
        while kills < 3:
            already = out.read_bytes().count(b"\n") if out.exists() else 0
            words = command(given, out, "--base-url", server.base_url)
            process = subprocess.Popen(words, stderr=subprocess.PIPE)
            goal = already + random.randint(5, 25)
            eventually(lambda goal=goal: out.exists() and out.read_bytes().count(b"\n") >= goal, 60)  # type: ignore[misc]
            process.send_signal(signal.SIGKILL)
            process.communicate()
            assert process.returncode == -signal.SIGKILL
            kills += 1
            with out.open("rb+") as file:  # what a kill in the middle of a write leaves
                file.truncate(max(file.seek(0, os.SEEK_END) - random.choice([0, 1, 9, 60]), 0))
        assert 0 < len(out.read_text().splitlines()) < LINES
        status, told = run(given, out, "--base-url", server.base_url)
        assert status == 0
        assert f"of {LINES} lines are answered already" in told
        asked = sum(bool(request.body) for request in server.requests)
        records = read(out)
        assert [(record["id"], record["text"]) for record in records] == [
            (number, f"prompt {number}!") for number in range(LINES)
        ]
        assert asked < 2 * LINES
        before = out.read_bytes()
        status, told = run(given, out, "--base-url", server.base_url)
        assert (status, out.read_bytes()) == (0, before)
        assert sum(bool(request.body) for request in server.requests) == asked


def test_an_error_of_an_earlier_run_counts(tmp_path: Path) -> None:
    given, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write(given, "bad", {"prompt": "a"})
    with FixtureServer(echo) as server:
        assert run(given, out, "--base-url", server.base_url)[0] == 3
        assert run(given, out, "--base-url", server.base_url)[0] == 3


def test_a_server_that_is_gone_stops_it(tmp_path: Path) -> None:
    given, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write(given, {"prompt": "a"}, {"prompt": "b"})
    with FixtureServer(echo) as server:
        url = server.base_url
    status, told = run(given, out, "--base-url", url)
    assert status == 1
    assert "no server answers" in told
    assert out.read_bytes() == b""
    with FixtureServer(echo) as server:
        assert run(given, out, "--base-url", server.base_url)[0] == 0
    assert len(read(out)) == 2


def test_a_connection_that_breaks_is_tried_again(tmp_path: Path) -> None:
    given, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write(given, {"prompt": "a"}, {"prompt": "poison"})
    broken: list[int] = []

    def breaking(exchange: Exchange) -> None:
        if exchange.body and (not broken or exchange.body["prompt"] == "poison"):
            broken.append(1)
            raise ConnectionResetError
        echo(exchange)

    with FixtureServer(breaking) as server:
        assert run(given, out, "--base-url", server.base_url, "--concurrency", "1")[0] == 3
    first, second = read(out)
    assert first["text"] == "a!"
    assert second["error"]["type"] == "MlxcelConnectionError"
    assert len(broken) == 1 + 3


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ("something else\n", "no output of `python -m mlxcel batch`: see its line 1"),
        ('{"line": 2, "text": ""}\n{"line": 1, "text": ""}\n', "see its line 2"),
        ('{"line": 2, "text": ""}\n', "another input's output"),
        ('{"line": 5, "text": ""}\n', "another input's output"),
    ],
)
def test_a_foreign_output_is_left_alone(tmp_path: Path, wrong: str, named: str) -> None:
    given, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write(given, {"prompt": "a"}, {"prompt": "b"})
    out.write_text(wrong)
    status, told = run(given, out, "--base-url", "http://127.0.0.1:1")
    assert status == 1
    assert named in told
    assert out.read_text() == wrong


def test_one_run_at_a_time(tmp_path: Path) -> None:
    given, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write(given, {"prompt": "a"})
    with out.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        status, told = run(given, out, "--base-url", "http://127.0.0.1:1")
    assert status == 1
    assert "being written by another run" in told


def test_usage(tmp_path: Path) -> None:
    given, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    status, told = run(given, out, "--base-url", "http://127.0.0.1:1")
    assert status == 1
    assert "No such file" in told
    assert not out.exists()
    write(given, {"prompt": "a"})
    assert run(given, given, "--base-url", "http://127.0.0.1:1")[0] == 1
    assert run(given, out)[0] == 2
    assert run(given, out, "--model", "m", "--socket", "s")[0] == 2
    with contextlib.suppress(FileNotFoundError):
        out.unlink()
