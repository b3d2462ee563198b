"""The whole chain with the real binary and the built-in model, sync and async, over UDS and TCP."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from typing import TYPE_CHECKING, Any

import jsonschema
import openai
import pytest

from mlxcel import LLM, AsyncLLM, ManagedServer, MlxcelServerError
from support import alive

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.e2e

MODEL = "mlxcel-tiny"
QUESTION = "What is 17 + 25?"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}

TRANSPORTS = pytest.mark.parametrize("where", [{}, {"host": "127.0.0.1"}], ids=["uds", "tcp"])


@pytest.fixture(scope="module")
def server(real_binary: Path) -> Iterator[ManagedServer]:
    """One server for all tests that only ask questions."""
    with ManagedServer(MODEL, binary=real_binary) as running:
        yield running


@pytest.fixture
def llm(server: ManagedServer) -> Iterator[LLM]:
    with LLM(socket=server.socket_path, api_key=server.api_key, timeout=60) as client:
        yield client


@TRANSPORTS
def test_the_main_job(real_binary: Path, where: dict[str, Any]) -> None:
    with LLM(MODEL, binary=real_binary, **where) as llm:
        assert llm.server is not None
        pid = llm.server.pid
        assert pid is not None
        assert llm.model == MODEL
        answer = llm.chat(QUESTION, temperature=0, max_tokens=64)
        assert answer
        assert answer.usage is not None
        assert answer.usage.prompt_tokens > 0
        assert answer.usage.completion_tokens > 0
        assert llm.chat_stream(QUESTION, temperature=0, max_tokens=64).result() == answer
        assert llm.generate("a", max_tokens=3).finish_reason in ("length", "stop")
    assert not alive(pid)


@TRANSPORTS
async def test_the_main_job_async(real_binary: Path, where: dict[str, Any]) -> None:
    async with AsyncLLM(MODEL, binary=real_binary, **where) as llm:
        assert llm.server is not None
        pid = llm.server.pid
        assert pid is not None
        assert llm.model == MODEL
        options: dict[str, Any] = {"temperature": 0, "max_tokens": 64}
        questions = [f"What is {n} + {n}?" for n in (11, 12, 13)]
        answers = await asyncio.gather(*(llm.chat(question, **options) for question in questions))
        assert [str(answer) for answer in answers] == [
            "".join([piece async for piece in llm.chat_stream(question, **options)]) for question in questions
        ]
        assert llm.openai_client is not None
    assert not alive(pid)


def test_the_answers_make_sense(llm: LLM) -> None:
    """Greedy sums that the shipped weights get right: a slip means that weights or arithmetic changed."""
    sums = [(17, 25), (12, 30), (41, 8), (36, 47), (20, 55)]
    answers = [llm.chat(f"What is {a} + {b}?", temperature=0, max_tokens=64) for a, b in sums]
    for (a, b), answer in zip(sums, answers, strict=True):
        assert str(a + b) in answer
    assert all(answer.finish_reason == "stop" for answer in answers)


def test_streams_equal_whole_answers(llm: LLM) -> None:
    whole = llm.generate("Count: 1 2 3", max_tokens=24, temperature=0)
    with llm.stream("Count: 1 2 3", max_tokens=24, temperature=0) as stream:
        pieces = list(stream)
        result = stream.result()
    assert "".join(pieces) == result == whole
    assert result.finish_reason == whole.finish_reason
    assert result.usage is not None
    assert whole.usage is not None
    assert result.usage.completion_tokens == whole.usage.completion_tokens


def test_greedy_and_seeded_answers_repeat(llm: LLM) -> None:
    greedy = {llm.generate("The", max_tokens=16, temperature=0) for _ in range(3)}
    assert len(greedy) == 1
    seeded = {llm.generate("The", max_tokens=16, temperature=1.5, seed=7) for _ in range(3)}
    assert len(seeded) == 1
    several = {llm.generate("The", max_tokens=16, temperature=1.5, seed=seed) for seed in range(8)}
    assert len(several) > 1


def test_max_tokens_and_stop(llm: LLM) -> None:
    short = llm.generate("Count: 1 2 3", max_tokens=2, temperature=0)
    assert short.usage is not None
    assert short.usage.completion_tokens <= 2
    options: dict[str, Any] = {"temperature": 0, "max_tokens": 32}
    whole = str(llm.chat("Count from 1 to 9.", **options))
    middle = whole[len(whole) // 2]
    stopped = llm.chat("Count from 1 to 9.", stop=[middle], **options)
    assert stopped == whole[: whole.index(middle)]
    assert stopped.finish_reason == "stop"
    assert "".join(llm.chat_stream("Count from 1 to 9.", stop=middle, **options)) == stopped


def test_several_choices(llm: LLM) -> None:
    result = llm.generate("The", n=3, max_tokens=8, temperature=1.0, seed=1)
    assert len(result.choices) == 3
    assert result == result.choices[0]


def test_logprobs(llm: LLM) -> None:
    result = llm.chat(QUESTION, temperature=0, max_tokens=4, logprobs=True, top_logprobs=3)
    streamed = llm.chat_stream(QUESTION, temperature=0, max_tokens=4, logprobs=True, top_logprobs=3).result()
    for answer in (result, streamed):
        assert answer.usage is not None
        assert len(answer.logprobs.content) == answer.usage.completion_tokens
        for token in answer.logprobs.content:
            best = token.top_logprobs[0]
            assert len(token.top_logprobs) == 3
            assert math.isclose(token.logprob, best.logprob, abs_tol=1e-4), "greedy takes the likeliest"
            assert token.logprob <= 0


@pytest.mark.parametrize("ask", ["chat", "generate", "chat_stream"])
def test_structured_output(llm: LLM, ask: str) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA, "strict": True}}
    answer = getattr(llm, ask)(
        "Extract name and age as JSON: Anna is 31 years old.",
        response_format=form,
        temperature=0,
        max_tokens=200,
    )
    result = answer.result() if ask == "chat_stream" else answer
    assert result.finish_reason == "stop", result
    jsonschema.validate(result.parsed, SCHEMA)
    assert result.parsed == json.loads(result)


def test_json_object(llm: LLM) -> None:
    answer = llm.chat(
        "Extract name and age as JSON: Anna is 31 years old.",
        response_format={"type": "json_object"},
        temperature=0,
        max_tokens=200,
    )
    assert isinstance(answer.parsed, dict)


@pytest.mark.parametrize("text", ["hello world", "Grüße, Welt! 你好 🙂", "  spaces\n\tand tabs", ""])
def test_tokenize_and_back(llm: LLM, text: str) -> None:
    assert llm.detokenize(llm.tokenize(text)) == text


def test_token_ids_as_a_prompt(llm: LLM) -> None:
    ids = llm.tokenize("Count: 1 2 3")
    assert llm.generate(ids, max_tokens=8, temperature=0) == llm.generate(
        llm.detokenize(ids), max_tokens=8, temperature=0
    )


def test_the_models_that_are_served(llm: LLM) -> None:
    assert [model.id for model in llm.models()] == [MODEL]
    assert llm.openai_client.models.list().data[0].id == MODEL


def test_a_conversation(llm: LLM) -> None:
    messages = [
        {"role": "user", "content": "What is 2 + 3?"},
        {"role": "assistant", "content": "5"},
        {"role": "user", "content": QUESTION},
    ]
    answer = llm.chat(messages, temperature=0, max_tokens=32)
    assert answer
    assert answer.usage is not None
    alone = llm.chat(QUESTION, temperature=0, max_tokens=1).usage
    assert alone is not None
    assert answer.usage.prompt_tokens > alone.prompt_tokens


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1},
        {"top_p": 2},
        {"max_tokens": -5},
        {"n": 0},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": 5}}}},
    ],
)
def test_bad_requests_name_what_is_wrong(llm: LLM, wrong: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        llm.chat(QUESTION, **wrong)
    assert next(iter(wrong)) in f"{caught.value.param} {caught.value}"


def test_a_wrong_key_is_refused_on_every_route(server: ManagedServer) -> None:
    for key in ("wrong", None):
        with LLM(socket=server.socket_path, api_key=key) as llm:
            for call in (llm.chat, llm.generate):
                with pytest.raises(openai.AuthenticationError):
                    call("x", model=MODEL)
            with pytest.raises(openai.AuthenticationError):
                llm.tokenize("x")
            with pytest.raises(openai.AuthenticationError):
                llm.models()


def test_a_model_that_is_not_served(llm: LLM) -> None:
    with pytest.raises(openai.NotFoundError, match=MODEL):
        llm.openai_client.models.retrieve("something-else")


def test_leaving_a_stream_frees_the_server(llm: LLM) -> None:
    """Long generations that nobody reads do not add up."""
    for _ in range(8):
        for _piece in llm.stream("Once", max_tokens=6000, temperature=1.0):
            break
    began = time.monotonic()
    llm.generate("a", max_tokens=1)
    assert time.monotonic() - began < 10.0


async def test_many_at_once(server: ManagedServer) -> None:
    async with AsyncLLM(socket=server.socket_path, api_key=server.api_key) as llm:
        alone = await llm.chat(QUESTION, temperature=0, max_tokens=32)
        crowd = await asyncio.gather(*(llm.chat(QUESTION, temperature=0, max_tokens=32) for _ in range(16)))
    assert {str(answer) for answer in crowd} == {str(alone)}


def test_one_async_client_through_several_loops(server: ManagedServer) -> None:
    llm = AsyncLLM(socket=server.socket_path, api_key=server.api_key)
    first = asyncio.run(llm.chat(QUESTION, temperature=0, max_tokens=32))
    assert asyncio.run(llm.chat(QUESTION, temperature=0, max_tokens=32)) == first
    asyncio.run(llm.close())


def test_a_model_that_does_not_exist(real_binary: Path, tmp_path: Path) -> None:
    with pytest.raises(MlxcelServerError, match="nothing-here") as caught:
        LLM(str(tmp_path / "nothing-here"), binary=real_binary)
    assert caught.value.exit_code == 1
    assert "nothing-here" in caught.value.stderr_tail
    assert len(caught.value.stderr_tail.splitlines()[-1]) > 10


def test_options_reach_the_server(real_binary: Path) -> None:
    with LLM(MODEL, binary=real_binary, alias="small", ctx_size=512, n_predict=5) as llm:
        assert llm.model == "small"
        answer = llm.generate("Once", temperature=0)
        assert answer.usage is not None
        assert answer.usage.completion_tokens <= 5
        with pytest.raises(openai.BadRequestError, match="512"):
            llm.generate("one two three " * 1000)


def test_the_environment_never_reaches_the_server(real_binary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_ARG_ALIAS", "from-the-environment")
    monkeypatch.setenv("LLAMA_ARG_MODEL", "/nowhere")
    monkeypatch.setenv("LLAMA_API_KEY", "not-this-one")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://nowhere.invalid")
    with LLM(MODEL, binary=real_binary) as llm:
        assert llm.model == MODEL


def test_the_key_stays_out_of_the_log(real_binary: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with LLM(MODEL, binary=real_binary, api_key="a-very-secret-key") as llm:
        llm.generate("a", max_tokens=1)
        with pytest.raises(openai.BadRequestError) as caught:
            llm.generate("a", temperature=-1)
    assert "a-very-secret-key" not in caplog.text
    assert "a-very-secret-key" not in str(caught.value)
    assert [record for record in caplog.records if record.name == "mlxcel.server"]


def test_a_socket_of_one_s_own(real_binary: Path, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with LLM(MODEL, binary=real_binary, socket=path) as llm:
        assert llm.server is not None
        assert llm.server.socket_path == str(path)
        with LLM(socket=path, api_key=llm.server.api_key) as other:
            assert other.model == MODEL
    assert not path.exists()
