"""The tree of errors: as documented, catchable as what a person would write, with short tracebacks."""

from __future__ import annotations

import asyncio
import copy
import pickle
import re
import traceback
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

import mlxcel
from mlxcel import LLM, AsyncLLM, MlxcelError, _sdk_errors, errors
from mlxcel.testing import Exchange, FixtureServer

DOCS = Path(__file__).parents[3] / "docs" / "python-client" / "errors.md"
LINE = re.compile(r"(Mlxcel\w+)(?: \((\w+)\))?")
CLASSES: list[type[Exception]] = [getattr(errors, name) for name in errors.__all__]


def tree(text: str) -> dict[str, str | None]:
    """Each class in the drawing, with the builtin it also is."""
    drawn = [line for line in text.splitlines() if "──" in line]
    return {match[1]: match[2] for line in drawn if (match := LINE.search(line))}


def test_the_drawing_is_the_truth() -> None:
    drawn = tree(str(errors.__doc__))
    assert set(drawn) == set(errors.__all__) - {"MlxcelError"}
    for name, builtin in drawn.items():
        bases = [base.__name__ for base in getattr(errors, name).__bases__]
        assert ([builtin] if builtin else []) == [base for base in bases if not base.startswith("Mlxcel")]
    assert tree(DOCS.read_text()) == drawn


@pytest.mark.parametrize(
    "error", [*CLASSES, _sdk_errors.RequestTimeoutError, _sdk_errors.RequestConnectionError]
)
def test_errors_travel(error: type[Exception]) -> None:
    """Between processes, as a worker's result."""
    one = error("what happened")
    for other in (pickle.loads(pickle.dumps(one)), copy.copy(one)):
        assert type(other) is error
        assert str(other) == "what happened"
        assert vars(other) == vars(one)


def test_the_request_s_own_are_the_sdk_s_too() -> None:
    request = httpx2.Request("POST", "http://h")
    timeout = _sdk_errors.RequestTimeoutError("m", limit="total", text="t", request=request)
    for kind in (
        MlxcelError,
        mlxcel.MlxcelTimeoutError,
        TimeoutError,
        openai.APITimeoutError,
        openai.OpenAIError,
    ):
        assert isinstance(timeout, kind)
    assert (timeout.limit, timeout.text, timeout.request, timeout.message) == ("total", "t", request, "m")
    broken = _sdk_errors.RequestConnectionError("m", request=request)
    for other in (mlxcel.MlxcelConnectionError, ConnectionError, openai.APIConnectionError):
        assert isinstance(broken, other)


def nobody(llm: LLM) -> None:
    llm.chat("p", model="m")


def refused(llm: LLM) -> None:
    llm.generate("p", model="m")


def read_on(llm: LLM) -> None:
    for _ in llm.stream("p", model="m"):
        pass


def bad_argument(llm: LLM) -> None:
    llm.chat(5, model="m")  # type: ignore[call-overload]


def unknown_model(llm: LLM) -> None:
    llm.chat("p", model="other")


def lines_of_ours(error: BaseException) -> list[str]:
    """Files of the frames below this one."""
    frames = traceback.extract_tb(error.__traceback__)
    last = max(i for i, frame in enumerate(frames) if frame.filename == __file__)
    return [Path(frame.filename).name for frame in frames[last + 1 :]]


def refuse(exchange: Exchange) -> None:
    if exchange.body.get("stream"):
        exchange.begin()
        exchange.piece("x")
        exchange.chunk(b"data: {broken\n\n")
    else:
        exchange.json(400, {"error": {"message": "no", "code": None}})


@pytest.mark.parametrize("use", [refused, read_on, bad_argument, unknown_model])
def test_tracebacks_end_at_our_boundary(use: Any) -> None:
    expected = (MlxcelError, openai.APIStatusError, TypeError)
    with (
        FixtureServer(refuse) as server,
        LLM(base_url=server.base_url) as llm,
        pytest.raises(expected) as caught,
    ):
        use(llm)
    assert len(lines_of_ours(caught.value)) <= 1, "the public method, or nothing of ours"
    shown = "".join(traceback.format_exception(caught.value))
    assert "site-packages" not in shown.replace("_pytest", "")


def test_the_same_for_a_connection_refused() -> None:
    with LLM(base_url="http://127.0.0.1:9/v1") as llm, pytest.raises(ConnectionError) as caught:
        nobody(llm)
    assert len(lines_of_ours(caught.value)) <= 1
    assert isinstance(caught.value.__cause__, httpx2.ConnectError), "what happened below stays visible"
    shown = "".join(traceback.format_exception(caught.value))
    assert "site-packages" not in shown
    assert "start one" in shown


def test_the_same_for_async() -> None:
    async def use() -> None:
        async with AsyncLLM(base_url="http://127.0.0.1:9/v1") as llm:
            await llm.chat("p", model="m")

    with pytest.raises(ConnectionError) as caught:
        asyncio.run(use())
    assert len(lines_of_ours(caught.value)) <= 1


def test_the_same_for_a_constructor(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        LLM("m", binary=tmp_path / "nothing")
    assert len(lines_of_ours(caught.value)) <= 1


def test_bugs_keep_all_their_frames() -> None:
    def broken(request: httpx2.Request) -> httpx2.Response:
        raise ZeroDivisionError

    with LLM(transport=httpx2.MockTransport(broken)) as llm, pytest.raises(ZeroDivisionError) as caught:
        llm.models()
    assert any("openai" in frame.filename for frame in traceback.extract_tb(caught.value.__traceback__))


def test_what_is_cut_off_goes_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "mlxcel.client")
    with LLM(base_url="http://127.0.0.1:9/v1") as llm, pytest.raises(ConnectionError):
        llm.models()
    record = next(record for record in caplog.records if record.exc_info)
    assert "httpcore2" in "".join(traceback.format_exception(record.exc_info[1]))  # type: ignore[index]


STATUSES = [
    (400, openai.BadRequestError),
    (401, openai.AuthenticationError),
    (403, openai.PermissionDeniedError),
    (404, openai.NotFoundError),
    (409, openai.ConflictError),
    (422, openai.UnprocessableEntityError),
    (429, openai.RateLimitError),
    (500, openai.InternalServerError),
    (502, openai.InternalServerError),
    (503, openai.InternalServerError),
]


@pytest.mark.parametrize(("status", "kind"), STATUSES)
async def test_statuses_are_the_sdk_s(status: int, kind: type[openai.APIStatusError]) -> None:
    def fail(request: httpx2.Request) -> httpx2.Response:
        if request.method == "GET":
            return httpx2.Response(200, json={"data": [{"id": "m"}]})
        error = {"message": "because", "code": "c", "param": "p"}
        return httpx2.Response(status, json={"error": error}, headers={"retry-after": "7"})

    with LLM(transport=httpx2.MockTransport(fail)) as llm:
        for call in (llm.generate, llm.chat, llm.stream, llm.chat_stream):
            with pytest.raises(kind, match="because") as caught:
                call("p")
            assert type(caught.value) is kind
            assert (caught.value.code, caught.value.param) == ("c", "p")
            assert caught.value.response.headers["retry-after"] == "7"
    async with AsyncLLM(transport=httpx2.MockTransport(fail)) as other:
        with pytest.raises(kind, match="because"):
            await other.chat("p")
        with pytest.raises(kind, match="because"):
            await other.stream("p").result()
