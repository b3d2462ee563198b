"""How a result shows itself: in a line, in a terminal, in a notebook. Pure."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .results import Result

__all__ = ["markdown", "short", "terminal"]


def short(result: Result[Any]) -> str:
    """As the string it is, but for one with more to it than its text: a pure tool call is not `''`."""
    text = str(result)
    more = [f"tool_calls=[{', '.join(map(str, result.tool_calls))}]"] if result.tool_calls else []
    if result.refusal:
        more.append(f"refusal={result.refusal!r}")
    return f"<Result {', '.join([repr(text), *more])}>" if more else repr(text)


def terminal(result: Result[Any]) -> str:
    """The text as it is, and what else the model wrote."""
    parts = [f"[{line}]" for line in (result.reasoning or "").strip().splitlines()]
    parts += [str(result)] if result else []
    parts += [f"refused: {result.refusal}"] if result.refusal else []
    parts += [f"call {call}" for call in result.tool_calls]
    parts += [f"({result.finish_reason}: the answer is cut off)"] if result.finish_reason == "length" else []
    return "\n".join(parts) or repr(str(result))


def markdown(result: Result[Any]) -> str:
    """The text as the Markdown that models write, with the reasoning folded away before it."""
    parts = []
    if result.reasoning:
        thought = html.escape(result.reasoning.strip())
        parts.append(f"<details><summary>Reasoning</summary>\n<pre>{thought}</pre>\n</details>")
    if result:
        parts.append(str(result))
    if result.refusal:
        parts.append(f"**Refused:** {result.refusal}")
    for call in result.tool_calls:
        # A fence longer than any run of backticks in what the model wrote.
        fence = "`" * max(3, 1 + _longest_run(call.raw))
        parts.append(f"Call of `{call.name}`:\n\n{fence}json\n{call.raw}\n{fence}")
    if result.finish_reason == "length":
        parts.append("*(cut off at the limit of tokens)*")
    return "\n\n".join(parts) or "*(an empty answer)*"


def _longest_run(text: str) -> int:
    longest = run = 0
    for letter in text:
        run = run + 1 if letter == "`" else 0
        longest = max(longest, run)
    return longest
