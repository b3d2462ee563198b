"""The loop of `run_tools`, with a server that says what each test wants."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from mlxcel import (
    LLM,
    AsyncLLM,
    MlxcelConfigError,
    MlxcelToolArgumentsError,
    MlxcelToolStepsError,
    ToolCall,
    ToolOutcome,
    ToolRun,
    ToolStart,
    ToolStep,
)
from mlxcel.testing import Exchange, FixtureServer, Reply

if TYPE_CHECKING:
    from collections.abc import Callable

Say = str | list[tuple[str, Any]]
"""An answer: text, or calls as names and arguments."""


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def fail(a: int) -> int:
    """Fail."""
    raise KeyError(a)


class Model:
    """Says one thing after the other, the last for ever; as chat or as a stream."""

    def __init__(self, *says: Say) -> None:
        self.says = list(says)
        self.asked: list[dict[str, Any]] = []

    def __call__(self, exchange: Exchange) -> None:
        self.asked.append(exchange.body)
        said = self.says.pop(0) if len(self.says) > 1 else self.says[0]
        message: dict[str, Any] = {"role": "assistant", "content": said}
        if not isinstance(said, str):
            message["content"] = None
            message["tool_calls"] = [
                {
                    "index": at,
                    "id": f"c{at}",
                    "type": "function",
                    "function": {"name": name, "arguments": raw},
                }
                for at, (name, raw) in enumerate(said)
            ]
        if exchange.body.get("stream"):
            exchange.begin()
            exchange.delta(message)
            exchange.end()
        else:
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            exchange.json(200, {"choices": [choice], "usage": Reply().usage})

    def told(self, step: int) -> list[str]:
        """What the results said that came with a request, from 0."""
        return [message["content"] for message in self.asked[step]["messages"] if message["role"] == "tool"]


def run_blocking(model: Model, tools: list[Any], **options: Any) -> ToolRun:
    with FixtureServer(model) as server, LLM(base_url=server.base_url) as llm:
        return llm.run_tools("Go.", tools=tools, **options)


def run_async(model: Model, tools: list[Any], **options: Any) -> ToolRun:
    async def main() -> ToolRun:
        async with AsyncLLM(base_url=server.base_url) as llm:
            return await llm.run_tools("Go.", tools=tools, **options)

    with FixtureServer(model) as server:
        return asyncio.run(main())


@pytest.fixture(params=[run_blocking, run_async], ids=["blocking", "async"])
def run(request: pytest.FixtureRequest) -> Callable[..., ToolRun]:
    chosen: Callable[..., ToolRun] = request.param
    return chosen


GOOD = ("add", '{"a": 1, "b": 2}')


def test_calls_are_executed_until_there_is_an_answer(run: Callable[..., ToolRun]) -> None:
    model = Model([GOOD, ("add", '{"a": 3, "b": 4}')], [GOOD], "Done.")
    got = run(model, [add], temperature=0)
    assert got == "Done."
    assert [len(step.outcomes) for step in got.steps] == [2, 1, 0]
    assert [outcome.value for outcome in got.steps[0].outcomes] == [3, 7]
    assert [message["role"] for message in got.messages] == [
        *("user", "assistant", "tool", "tool", "assistant", "tool", "assistant")
    ]
    assert got.usage is not None
    assert got.usage.total_tokens == 3 * Reply().usage["total_tokens"]
    assert model.asked[2]["messages"] == got.messages[:-1]
    assert model.told(1) == ['{"result":3}', '{"result":7}']
    assert [body["temperature"] for body in model.asked] == [0, 0, 0]


@pytest.mark.parametrize("raw", ['{"a": 1', "[]", "", '{"a": 1, "b": "x"}'])
def test_nothing_of_an_answer_with_a_malformed_call_is_executed(
    run: Callable[..., ToolRun], raw: str
) -> None:
    called = []

    def note(a: int, b: int) -> None:
        """Note two numbers."""
        called.append((a, b))

    model = Model([("note", '{"a": 1, "b": 2}'), ("note", raw)], "Sorry.")
    got = run(model, [note])
    assert called == []
    other, malformed = model.told(1)
    assert "not executed: another call" in json.loads(other)["error"]
    assert json.loads(malformed)["you_wrote"] == raw
    assert [outcome.executed for outcome in got.steps[0].outcomes] == [False, False]
    assert got.messages[1]["tool_calls"][1]["function"]["arguments"] == raw, "as it was written"


def test_a_model_that_keeps_writing_malformed_calls_is_given_up(run: Callable[..., ToolRun]) -> None:
    model = Model([("add", "{oops")])
    with pytest.raises(MlxcelToolArgumentsError, match="not a JSON object") as caught:
        run(model, [add], max_malformed=2)
    assert caught.value.raw == "{oops"
    assert caught.value.run is not None
    assert len(caught.value.run.steps) == 3
    assert len(model.asked) == 3


def test_the_count_of_malformed_answers_begins_anew_after_a_good_one(run: Callable[..., ToolRun]) -> None:
    bad: Say = [("add", "{oops")]
    assert run(Model(bad, [GOOD], bad, [GOOD], "Done."), [add], max_malformed=1) == "Done."


def test_an_unknown_tool_is_told_of_and_not_executed(run: Callable[..., ToolRun]) -> None:
    model = Model([("sub", "{}"), GOOD], "Ah.")
    run(model, [add])
    assert "there is no tool 'sub'; there are: add" in model.told(1)[0]
    assert "not executed" in model.told(1)[1]


def test_whole_objects_as_arguments_and_calls_without_ids(run: Callable[..., ToolRun]) -> None:
    class Ollama(Model):
        def __call__(self, exchange: Exchange) -> None:
            self.asked.append(exchange.body)
            call = {"function": {"name": "add", "arguments": {"a": 1, "b": 2}}}
            message = (
                {"content": "", "tool_calls": [call, call]} if len(self.asked) == 1 else {"content": "Done."}
            )
            exchange.json(200, {"choices": [{"index": 0, "finish_reason": "stop", "message": message}]})

    model = Ollama("")
    got = run(model, [add])
    assert [outcome.value for outcome in got.steps[0].outcomes] == [3, 3]
    sent = model.asked[1]["messages"]
    ids = [call["id"] for call in sent[1]["tool_calls"]]
    assert len(set(ids)) == 2
    assert [message["tool_call_id"] for message in sent[2:]] == ids
    assert got.usage is None


def test_the_limit_of_steps(run: Callable[..., ToolRun]) -> None:
    called = []

    def note() -> None:
        """Note."""
        called.append(1)

    with pytest.raises(MlxcelToolStepsError, match="max_steps=3") as caught:
        run(Model([("note", "{}")]), [note], max_steps=3)
    assert len(called) == 2, "the last answer's calls would lead nowhere"
    assert caught.value.run is not None
    assert len(caught.value.run.steps) == 3
    assert run(Model([("note", "{}")], "Done."), [note], max_steps=2) == "Done."


def test_what_a_tool_raises_is_told_or_raised(run: Callable[..., ToolRun]) -> None:
    calls: Say = [("fail", '{"a": 7}'), GOOD]
    model = Model(calls, "Pity.")
    got = run(model, [add, fail])
    assert model.told(1) == ['{"error":"KeyError: 7"}', '{"result":3}']
    assert isinstance(got.steps[0].outcomes[0].error, KeyError)
    for parallel in (True, False):
        with pytest.raises(KeyError, match="7"):
            run(Model(calls, "Pity."), [add, fail], on_error="raise", parallel=parallel)


def test_values_that_json_has_no_words_for_are_the_tools_error(run: Callable[..., ToolRun]) -> None:
    def look() -> object:
        """Look."""
        return object()

    model = Model([("look", "{}")], "Done.")
    run(model, [look])
    assert "error" in json.loads(model.told(1)[0])


@pytest.mark.parametrize(
    ("value", "content"), [("as is", "as is"), ({"a": 1}, '{"a":1}'), (None, '{"result":null}')]
)
def test_what_the_model_is_told(run: Callable[..., ToolRun], value: object, content: str) -> None:
    def look() -> object:
        """Look."""
        return value

    model = Model([("look", "{}")], "Done.")
    run(model, [look])
    assert model.told(1) == [content]


def test_async_functions(run: Callable[..., ToolRun]) -> None:
    async def later(a: int) -> int:
        """Take your time."""
        await asyncio.sleep(0)
        return a + 1

    for parallel in (True, False):
        model = Model([("later", '{"a": 1}'), ("later", '{"a": 2}')], "Done.")
        run(model, [later], parallel=parallel)
        assert model.told(1) == ['{"result":2}', '{"result":3}']


def test_calls_of_one_answer_run_side_by_side(run: Callable[..., ToolRun]) -> None:
    both = threading.Barrier(2)

    def meet() -> str:
        """Meet the other."""
        both.wait(30)
        return "met"

    model = Model([("meet", "{}"), ("meet", "{}")], "Done.")
    run(model, [meet])
    assert model.told(1) == ["met", "met"]


def test_without_parallel_they_run_in_order_and_in_the_callers_thread() -> None:
    seen: list[tuple[int, int]] = []

    def note(a: int) -> None:
        """Note."""
        seen.append((a, threading.get_ident()))

    model = Model([("note", '{"a": 1}'), ("note", '{"a": 2}')], "Done.")
    run_blocking(model, [note], parallel=False)
    assert seen == [(1, threading.get_ident()), (2, threading.get_ident())]


def test_approval(run: Callable[..., ToolRun]) -> None:
    def approve(call: ToolCall) -> bool | str:
        answers: dict[int, bool | str] = {1: True, 2: False, 3: "too much"}
        return answers[call.arguments["a"]]

    model = Model([("add", f'{{"a": {a}, "b": 0}}') for a in (1, 2, 3)], "Done.")
    got = run(model, [add], approve=approve)
    assert model.told(1) == [
        '{"result":1}',
        '{"error":"the user does not allow this call"}',
        '{"error":"too much"}',
    ]
    assert [outcome.executed for outcome in got.steps[0].outcomes] == [True, False, False]


def test_async_approval_and_one_that_ends_the_run(run: Callable[..., ToolRun]) -> None:
    async def approve(call: ToolCall) -> bool:
        return False

    def stop(call: ToolCall) -> bool:
        raise InterruptedError

    model = Model([GOOD], "Done.")
    run(model, [add], approve=approve)
    assert "error" in model.told(1)[0]
    with pytest.raises(InterruptedError):
        run(Model([GOOD], "Done."), [add], approve=stop)


def test_every_step_is_told(run: Callable[..., ToolRun]) -> None:
    events: list[Any] = []
    got = run(Model([GOOD], "Done."), [add], on_event=events.append)
    kinds = [type(event).__name__ for event in events]
    assert kinds == [
        *("ToolCallDelta", "Finish", "ToolStart", "ToolOutcome", "ToolStep"),
        *("TextDelta", "Finish", "ToolStep"),
    ]
    assert [event for event in events if isinstance(event, ToolStep)] == got.steps
    (start,) = (event for event in events if isinstance(event, ToolStart))
    (outcome,) = (event for event in events if isinstance(event, ToolOutcome))
    assert start.call == outcome.call
    assert got == "Done."


def test_what_on_event_raises_ends_the_run(run: Callable[..., ToolRun]) -> None:
    def angry(event: object) -> None:
        if isinstance(event, ToolOutcome):
            raise InterruptedError

    with pytest.raises(InterruptedError):
        run(Model([GOOD], "Done."), [add], on_event=angry)


def test_a_forced_call_is_forced_once(run: Callable[..., ToolRun]) -> None:
    model = Model([GOOD], "Done.")
    run(model, [add], tool_choice="required")
    assert [body["tool_choice"] for body in model.asked] == ["required", "auto"]


def test_the_answer_in_a_form(run: Callable[..., ToolRun]) -> None:
    got = run(Model([GOOD], "[3]"), [add], response_format=list[int])
    assert got.parsed == [3]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_steps": 0}, "max_steps"),
        ({"on_error": "ignore"}, "'report' or 'raise'"),
        ({"n": 2}, "leave n out"),
        ({"tools": []}, "at least one tool"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, r"cannot execute \['f'\]"),
    ],
)
def test_options_that_make_no_sense(run: Callable[..., ToolRun], options: dict[str, Any], says: str) -> None:
    with pytest.raises(MlxcelConfigError, match=says):
        run(Model("x"), **{"tools": [add], **options})


def test_calls_in_plain_text() -> None:
    call = '<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call>'
    model = Model(f"Wait.\n{call}", "Done.")
    with FixtureServer(model) as server, LLM(base_url=server.base_url, tool_protocol="prompt") as llm:
        for on_event in (None, lambda event: None):
            model.says, model.asked = [f"Wait.\n{call}", "Done."], []
            got = llm.run_tools("Go.", tools=[add], on_event=on_event)
            assert got == "Done."
            assert got.steps[0].result == "Wait."
            assert got.steps[0].result.finish_reason == "tool_calls"
            assert [message["role"] for message in got.messages] == ["user", "assistant", "tool", "assistant"]
            assert "tools" not in model.asked[0]
            sent = [message["role"] for message in model.asked[1]["messages"]]
            assert sent == ["system", "user", "assistant", "user"]


def test_many_prompts_share_their_tools() -> None:
    with FixtureServer(Model([GOOD])) as server, LLM(base_url=server.base_url) as llm:
        answers = llm.chat(["one", "two", "three"], tools=[add], progress=False)
        assert [answer.tool_calls[0].arguments for answer in answers] == [{"a": 1, "b": 2}] * 3
