"""Conversations: what they remember, what they send, and images and files in them."""

from __future__ import annotations

import asyncio
import base64
import inspect
import json
from typing import TYPE_CHECKING, Any

import openai
import pytest

from mlxcel import (
    LLM,
    AsyncChat,
    AsyncLLM,
    Chat,
    MlxcelConfigError,
    MlxcelStateError,
    MlxcelToolStepsError,
    ToolOutcome,
    ToolRun,
    file_part,
    image_part,
)
from mlxcel._window import budget_of, context_of, surely_fits, window
from mlxcel.parts import user_message
from mlxcel.testing import Exchange, FixtureServer, Reply

if TYPE_CHECKING:
    from pathlib import Path

PNG = b"\x89PNG\r\n\x1a\n rest"


class Echo:
    """Says what was said last; its template counts a word as a token."""

    def __init__(self, n_ctx: int | None = None) -> None:
        self.n_ctx = n_ctx
        self.counted = 0

    def __call__(self, exchange: Exchange) -> None:
        body = exchange.body
        if exchange.path == "/props":
            exchange.json(200 if self.n_ctx else 404, {"default_generation_settings": {"n_ctx": self.n_ctx}})
        elif exchange.path == "/apply-template":
            self.counted += 1
            exchange.json(200, {"prompt": " ".join(str(m["content"]) for m in body["messages"])})
        elif exchange.path == "/tokenize":
            exchange.json(200, {"tokens": [1 for _ in body["content"].split()]})
        elif body["messages"][-1]["content"] == "fail":
            exchange.json(400, {"error": {"message": "no"}})
        elif body.get("stream"):
            exchange.begin()
            exchange.piece("so: ")
            exchange.piece(str(body["messages"][-1]["content"]))
            exchange.end()
        else:
            message = {"role": "assistant", "content": f"so: {body['messages'][-1]['content']}"}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            exchange.json(200, {"choices": [choice], "usage": Reply().usage})


def test_a_conversation_remembers() -> None:
    with FixtureServer(Echo()) as server, LLM(base_url=server.base_url) as llm:
        chat = Chat(llm, "Be brief.", temperature=0)
        assert chat.send("one") == "so: one"
        assert chat.send("two", seed=3) == "so: two"
        body = server.requests[-1].body
        assert (body["temperature"], body["seed"]) == (0, 3)
        assert [m["content"] for m in body["messages"]] == ["Be brief.", "one", "so: one", "two"]
        assert chat.messages == [*body["messages"], {"role": "assistant", "content": "so: two"}]


def test_a_failed_turn_leaves_no_trace() -> None:
    with FixtureServer(Echo()) as server, LLM(base_url=server.base_url) as llm:
        chat = Chat(llm)
        with pytest.raises(openai.BadRequestError):
            chat.send("fail")
        with pytest.raises(openai.BadRequestError):
            chat.stream("fail")
        assert chat.messages == []


def test_a_streamed_turn_is_kept_once_it_is_whole() -> None:
    with FixtureServer(Echo()) as server, LLM(base_url=server.base_url) as llm:
        chat = Chat(llm)
        assert list(chat.stream("one")) == ["so: ", "one"]
        assert chat.messages[-1]["content"] == "so: one"
        with chat.stream("two") as stream:
            assert next(stream) == "so: "
            assert stream.text == "so: "
        assert len(chat.messages) == 2
        stream = chat.stream("three")
        assert stream.result() == stream.result() == "so: three"
        assert len(chat.messages) == 4


def test_branches_part(tmp_path: Path) -> None:
    with FixtureServer(Echo()) as server, LLM(base_url=server.base_url) as llm:
        chat = Chat(llm, "Be brief.")
        chat.send("one")
        other = chat.branch()
        other.send("two")
        other.messages[0]["content"] = "Be long."
        assert [m["content"] for m in chat.messages] == ["Be brief.", "one", "so: one"]
        assert len(other.messages) == 5

        chat.send("", images=[PNG])
        path = tmp_path / "chat.json"
        chat.save(path)
        again = Chat.load(path, llm, temperature=1)
        assert again.messages == chat.messages
        assert [entry.name for entry in tmp_path.iterdir()] == ["chat.json"]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": "mlxcel chat 9", "messages": []}'])
def test_what_was_not_saved_cannot_be_loaded(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with LLM(base_url="http://127.0.0.1:9/v1") as llm, pytest.raises(MlxcelConfigError, match="not a saved"):
        Chat.load(tmp_path / "x.json", llm)


def test_a_save_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    with LLM(base_url="http://127.0.0.1:9/v1") as llm:
        chat = Chat(llm, "Be brief.")
        chat.save(tmp_path / "x.json")
        chat.messages.append({"role": "user", "content": object()})
        with pytest.raises(TypeError):
            chat.save(tmp_path / "x.json")
        assert len(Chat.load(tmp_path / "x.json", llm).messages) == 1
        assert len(list(tmp_path.iterdir())) == 1


def test_each_kind_of_chat_wants_its_kind_of_client() -> None:
    blocking, awaited = LLM(base_url="http://127.0.0.1:9/v1"), AsyncLLM(base_url="http://127.0.0.1:9/v1")
    wrong: Any = awaited
    with pytest.raises(MlxcelConfigError, match="AsyncChat"):
        Chat(wrong)
    wrong = blocking
    with pytest.raises(MlxcelConfigError, match="there is Chat"):
        AsyncChat(wrong)
    with pytest.raises(MlxcelConfigError, match="number of tokens"):
        Chat(blocking, context=0)
    blocking.close()
    asyncio.run(awaited.close())


@pytest.mark.parametrize("name", ["send", "stream", "save", "load", "branch", "__init__"])
def test_both_kinds_have_one_interface(name: str) -> None:
    one, other = getattr(Chat, name), getattr(AsyncChat, name)
    assert inspect.signature(one).parameters == inspect.signature(other).parameters


def test_the_oldest_turns_are_not_sent_when_the_context_is_full() -> None:
    echo = Echo(n_ctx=2000)
    with FixtureServer(echo) as server, LLM(base_url=server.base_url) as llm:
        chat = Chat(llm, "Be brief.", max_tokens=1000)
        chat.send("word " * 200)
        assert echo.counted == 0, "one turn is sent, however long"
        chat.send("word " * 200)
        assert echo.counted == 1, "more bytes than it may have tokens"
        assert chat.dropped == 0
        chat.send("word " * 200)  # 2 + 400 + 400 + 200, and some for "so:"
        assert chat.dropped == 2
        sent = server.requests[-1].body["messages"]
        assert [m["role"] for m in sent] == ["system", "user", "assistant", "user"]
        assert len(chat.messages) == 7, "all is remembered"
        chat.send("word " * 5000)
        assert chat.dropped == 6, "the last turn is sent, however long"


def test_short_conversations_are_not_counted() -> None:
    echo = Echo(n_ctx=100_000)
    with FixtureServer(echo) as server, LLM(base_url=server.base_url) as llm:
        Chat(llm).send("one")
        assert echo.counted == 0


def test_a_server_that_cannot_count_is_sent_everything() -> None:
    with FixtureServer(Echo()) as server, LLM(base_url=server.base_url) as llm:
        chat = Chat(llm)
        for _ in range(3):
            chat.send("word " * 5000)
        assert chat.dropped == 0
        assert len(server.requests[-1].body["messages"]) == 5
        assert [seen.path for seen in server.requests].count("/props") == 1


def test_the_same_awaited() -> None:
    async def main() -> None:
        async with AsyncLLM(base_url=server.base_url) as llm:
            chat = AsyncChat(llm, max_tokens=1000)
            for _ in range(3):
                await chat.send("word " * 200)
            await chat.send("word " * 200)
            assert chat.dropped > 0
            other = chat.branch()
            assert [piece async for piece in other.stream("one")] == ["so: ", "one"]
            async with other.stream("two") as stream:
                assert await anext(stream) == "so: "
                assert stream.text == "so: "
            assert await other.stream("three").result() == "so: three"
            assert len(other.messages) == len(chat.messages) + 4

    with FixtureServer(Echo(n_ctx=2000)) as server:
        asyncio.run(main())


def add(a: int, b: int) -> int:
    """Add."""
    return a + b


class Adder:
    """Calls a tool for what the user says, and says what it came to."""

    def __call__(self, exchange: Exchange) -> None:
        if exchange.path == "/props":
            exchange.json(404, {})
        elif exchange.body["messages"][-1]["role"] == "user":
            exchange.play(Reply("Let me see. ", tool_calls=[("add", {"a": 1, "b": 2})]))
        else:
            exchange.play(Reply(["It is ", "3."]))


ROLES = ["user", "assistant", "tool", "assistant"]


def test_tools_are_called_within_a_turn() -> None:
    with FixtureServer(Adder()) as server, LLM(base_url=server.base_url) as llm:
        chat = Chat(llm, tools=[add], max_steps=3)
        assert chat.send("1 + 2?") == "It is 3."
        assert [m["role"] for m in chat.messages] == ROLES


def test_a_turn_with_tools_is_streamed_through_the_calls() -> None:
    with FixtureServer(Adder()) as server, LLM(base_url=server.base_url) as llm:
        chat, seen = Chat(llm, tools=[add]), list[object]()
        with chat.stream("1 + 2?", on_event=seen.append) as stream:
            assert "".join(stream) == stream.text == "Let me see. It is 3."
            run = stream.result()
        assert isinstance(run, ToolRun)
        assert run == "It is 3."
        assert [outcome.value for outcome in seen if isinstance(outcome, ToolOutcome)] == [3]
        assert [m["role"] for m in chat.messages] == ROLES
        assert chat.messages == run.messages
        assert chat.stream("1 + 2?").result() == "It is 3."
        assert [m["role"] for m in chat.messages] == ROLES * 2


@pytest.mark.parametrize("pieces", [0, 1, 2])
def test_a_turn_with_tools_that_is_left_early_leaves_no_trace(pieces: int) -> None:
    with FixtureServer(Adder()) as server, LLM(base_url=server.base_url) as llm:
        chat = Chat(llm, tools=[add])
        with chat.stream("1 + 2?") as stream:
            for _ in range(pieces):
                next(stream)
        with pytest.raises(MlxcelStateError, match="left before its answer"):
            stream.result()
        stopped = chat.stream("1 + 2?", max_steps=1)
        with pytest.raises(MlxcelToolStepsError):
            stopped.result()
        with pytest.raises(MlxcelStateError, match="left before its answer"):
            next(stopped)
        assert chat.messages == []


async def test_the_async_chat_streams_through_the_calls_too() -> None:
    with FixtureServer(Adder()) as server:
        async with AsyncLLM(base_url=server.base_url) as llm:
            chat, seen = AsyncChat(llm, tools=[add]), list[object]()
            async with chat.stream("1 + 2?", on_event=seen.append) as stream:
                assert "".join([piece async for piece in stream]) == stream.text == "Let me see. It is 3."
            assert [outcome.value for outcome in seen if isinstance(outcome, ToolOutcome)] == [3]
            assert [m["role"] for m in chat.messages] == ROLES
            assert await chat.stream("1 + 2?").result() == "It is 3."
            async with chat.stream("1 + 2?") as stream:
                assert await anext(stream) == "Let "
            with pytest.raises(MlxcelStateError, match="left before its answer"):
                await stream.result()
            assert [m["role"] for m in chat.messages] == ROLES * 2


def said(*roles: str) -> list[dict[str, Any]]:
    return [{"role": role, "content": at} for at, role in enumerate(roles)]


def best(messages: list[dict[str, Any]], budget: int) -> list[int]:
    """The window, a token a message."""
    steps = window(messages, budget)
    try:
        part = next(steps)
        while True:
            part = steps.send(len(part))
    except StopIteration as found:
        return [message["content"] for message in found.value]


def test_turns_go_whole_and_no_more_of_them_than_must() -> None:
    turn = ("user", "assistant", "tool", "assistant")
    messages = said("system", *turn, "developer", *turn, *turn, "user")
    assert best(messages, 99) == list(range(15))
    assert best(messages, 14) == [0, 5, *range(6, 15)]
    assert best(messages, 11) == [0, 5, *range(6, 15)]
    assert best(messages, 10) == [0, 5, *range(10, 15)]
    assert best(messages, 6) == [0, 5, 14]
    assert best(messages, 1) == [0, 5, 14]
    assert best(said("system", "user"), 1) == [0, 1]
    assert best(said("system"), 0) == [0]


def test_what_is_known_of_the_context() -> None:
    assert context_of({"n_ctx": 5}) == 5
    assert context_of({"n_ctx": 9, "default_generation_settings": {"n_ctx": 5}}) == 5
    assert context_of({"n_ctx": None}) is None
    assert budget_of(8192, {}) == 8192 - 1024
    assert budget_of(1000, {}) == 750
    assert budget_of(1000, {"max_tokens": 10}) == 990
    assert surely_fits([{"role": "user", "content": "x"}], [], 700)
    assert not surely_fits([{"role": "user", "content": "ü" * 100}], [], 700)


def test_images_by_path_bytes_and_url(tmp_path: Path) -> None:
    data = base64.b64encode(PNG).decode()
    part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
    (tmp_path / "x.png").write_bytes(PNG)
    (tmp_path / "x.dat").write_bytes(PNG)
    assert image_part(PNG) == part
    assert image_part(tmp_path / "x.png") == image_part(str(tmp_path / "x.dat")) == part
    url = "https://host/x"
    assert image_part(url, detail="low")["image_url"] == {"url": url, "detail": "low"}
    assert image_part(b"raw", media_type="image/tiff")["image_url"]["url"].startswith("data:image/tiff;")
    for wrong in (b"what", b"%PDF-1.7"):
        with pytest.raises(MlxcelConfigError, match="no image"):
            image_part(wrong)
    with pytest.raises(FileNotFoundError):
        image_part(tmp_path / "gone.png")


def test_files_by_path_bytes_and_url(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.7")
    data = base64.b64encode(b"%PDF-1.7").decode()
    part = {"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{data}"}}
    assert file_part(tmp_path / "a.pdf") == part
    assert file_part(b"%PDF-1.7", name="a.pdf") == part
    assert file_part("https://host/b/a.pdf?x=1")["file"] == {
        "filename": "a.pdf",
        "file_data": "https://host/b/a.pdf?x=1",
    }
    assert "text/csv" in file_part(b"a,b", name="a.csv")["file"]["file_data"]
    assert "application/octet-stream" in file_part(b"?", name="a")["file"]["file_data"]
    with pytest.raises(MlxcelConfigError, match="needs a name"):
        file_part(b"x")


def test_images_and_files_go_with_the_text() -> None:
    with FixtureServer(Echo()) as server, LLM(base_url=server.base_url) as llm:
        chat = Chat(llm)
        chat.send("Look.", images=[PNG], files=["https://host/a.pdf"])
        content = server.requests[-1].body["messages"][0]["content"]
        assert [part["type"] for part in content] == ["text", "image_url", "file"]
        assert json.dumps(chat.messages)


def test_one_image_or_file_needs_no_list(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    for one in (PNG, path, str(path)):
        assert user_message("Look.", one) == user_message("Look.", [one])
    assert user_message("Read.", files="https://host/a.pdf") == user_message(
        "Read.", files=["https://host/a.pdf"]
    )
