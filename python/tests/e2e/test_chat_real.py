"""Conversations with the built-in model and the real binary."""

from __future__ import annotations

from typing import TYPE_CHECKING

import openai
import pytest

from mlxcel import LLM, AsyncChat, AsyncLLM, Chat

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.e2e


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def test_a_conversation_within_a_small_context(real_binary: Path, tmp_path: Path) -> None:
    with LLM("mlxcel-tiny", binary=real_binary, ctx_size=400) as llm:
        chat = Chat(llm, system="Be brief.", temperature=0, max_tokens=40)
        for number in range(14):
            answer = chat.send(f"What is {number} + 25?")
            assert str(number + 25) in answer
            assert answer.usage is not None
            assert answer.usage.prompt_tokens <= 400 - 40
        assert chat.dropped > 0
        assert len(chat.messages) == 29
        assert "".join(chat.stream("What is 17 + 25?")) == chat.messages[-1]["content"]

        chat.save(tmp_path / "chat.json")
        again = Chat.load(tmp_path / "chat.json", llm, temperature=0, max_tokens=40)
        assert again.send("What is 3 + 4?") == chat.branch().send("What is 3 + 4?")


def test_the_server_counts_what_it_then_reads(real_binary: Path) -> None:
    with LLM("mlxcel-tiny", binary=real_binary) as llm:
        messages = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi <|im_end|>"},
        ]
        tokens = len(llm.tokenize(llm.apply_template(messages)))
        answer = llm.chat(messages, max_tokens=1)
        assert answer.usage is not None
        assert answer.usage.prompt_tokens == tokens


def test_tools_within_a_conversation(real_binary: Path) -> None:
    with LLM("mlxcel-tiny", binary=real_binary) as llm:
        chat = Chat(llm, tools=[add], temperature=0)
        assert "42" in chat.send("Use the tool to add 17 and 25.")
        assert [m["role"] for m in chat.messages] == ["user", "assistant", "tool", "assistant"]


def test_a_model_that_cannot_see_says_so(real_binary: Path) -> None:
    with LLM("mlxcel-tiny", binary=real_binary) as llm:
        chat = Chat(llm)
        with pytest.raises(openai.BadRequestError, match=r"image_url.*text only"):
            chat.send("What is this?", images=[b"\x89PNG\r\n\x1a\n"])
        with pytest.raises(openai.BadRequestError, match=r"file.*text only"):
            chat.send("What is this?", files=["https://host/a.pdf"])
        assert chat.messages == []


async def test_the_same_awaited(real_binary: Path) -> None:
    async with AsyncLLM("mlxcel-tiny", binary=real_binary) as llm:
        chat = AsyncChat(llm, temperature=0)
        assert "42" in await chat.send("What is 17 + 25?")
        async with chat.stream("What is 3 + 4?") as stream:
            assert "7" in "".join([piece async for piece in stream])
        assert len(chat.messages) == 4
