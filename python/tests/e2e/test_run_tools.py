"""Python functions as tools of the built-in model, with the real binary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import pytest

from mlxcel import LLM, AsyncLLM, ToolOutcome

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.e2e
ASK = "Use the tool to add 17 and 25."


def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: The first number
        b: The second number
    """
    return a + b


@pytest.mark.parametrize("protocol", ["native", "prompt"])
def test_a_function_is_called_and_its_result_told(
    real_binary: Path, protocol: Literal["native", "prompt"]
) -> None:
    with LLM("mlxcel-tiny", binary=real_binary, tool_protocol=protocol) as llm:
        call = llm.chat(ASK, tools=[add], temperature=0)
        assert call == ""
        assert call.finish_reason == "tool_calls"
        assert [one.arguments for one in call.tool_calls] == [{"a": 17, "b": 25}]
        with llm.chat_stream(ASK, tools=[add], temperature=0) as stream:
            assert [one.arguments for one in stream.result().tool_calls] == [{"a": 17, "b": 25}]

        events: list[Any] = []
        run = llm.run_tools(ASK, tools=[add], temperature=0, on_event=events.append)
        assert "42" in run
        assert [event.value for event in events if isinstance(event, ToolOutcome)] == [42]
        silent = llm.run_tools(ASK, tools=[add], temperature=0)
        assert silent == run
        assert silent.usage is not None
        assert run.usage is not None
        assert silent.usage.total_tokens == run.usage.total_tokens


def test_a_malformed_call_of_the_past_is_taken(real_binary: Path) -> None:
    """`run_tools` sends what the model wrote back as it is."""
    called = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 17'}}
    with LLM("mlxcel-tiny", binary=real_binary) as llm:
        answer = llm.chat(
            [
                {"role": "user", "content": ASK},
                {"role": "assistant", "content": None, "tool_calls": [called]},
                {"role": "tool", "tool_call_id": "1", "content": '{"error": "not executed"}'},
            ],
            tools=[add],
            temperature=0,
            max_tokens=50,
        )
        assert answer or answer.tool_calls


async def test_the_same_with_an_async_client(real_binary: Path) -> None:
    async def plus(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    async with AsyncLLM("mlxcel-tiny", binary=real_binary) as llm:
        for function in (add, plus):
            run = await llm.run_tools(ASK, tools=[function], temperature=0)
            assert "42" in run
