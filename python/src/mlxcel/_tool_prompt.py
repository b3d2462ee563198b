"""`tool_protocol="prompt"`: tools for servers that know none, told and called in plain text. Pure.

What a tool is, how one calls it, the calls made and their results all become
text of ordinary messages; calls are read back from the answer. The form is
the one most open models have seen: JSON between `<tool_call>` tags.
"""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from ._fields import item
from ._tool_calls import ToolCall, argument_text, tool_calls_of
from .errors import MlxcelConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["PromptReader", "ToolProtocol", "as_protocol", "finish_of", "split", "told"]

ToolProtocol: TypeAlias = Literal["native", "prompt"]
"""`"native"`: the server knows tools. `"prompt"`: they are described and called in plain text."""

OPEN, CLOSE = "<tool_call>", "</tool_call>"
_MOVED = ("tools", "tool_choice", "parallel_tool_calls")


def as_protocol(given: str) -> ToolProtocol:
    """Check a caller's choice; MlxcelConfigError for anything else."""
    if given == "native" or given == "prompt":
        return "native" if given == "native" else "prompt"
    raise MlxcelConfigError(f"tool_protocol is 'native' or 'prompt', not {given!r}")


def told(
    messages: Iterable[Mapping[str, Any]], tools: Sequence[Any], params: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The conversation and the parameters, with all that is about tools turned into text."""
    conversation: list[dict[str, Any]] = []
    for message in messages:
        _add(conversation, dict(message))
    choice = params.get("tool_choice")
    if tools and choice != "none":
        lines = _described(tools, choice, one=params.get("parallel_tool_calls") is False)
        if conversation and conversation[0].get("role") in ("system", "developer"):
            conversation[0]["content"] = _extended(conversation[0].get("content"), lines)
        else:
            conversation.insert(0, {"role": "system", "content": lines})
    return conversation, {name: value for name, value in params.items() if name not in _MOVED}


def _add(conversation: list[dict[str, Any]], message: dict[str, Any]) -> None:
    if message.get("role") == "tool":
        # As the user's: not every template knows another role. Results of one turn share a message.
        response = f"<tool_response>\n{_text(message.get('content'))}\n</tool_response>"
        last = conversation[-1] if conversation else {}
        if last.get("role") == "user" and str(last.get("content")).startswith("<tool_response>"):
            last["content"] += f"\n{response}"
        else:
            conversation.append({"role": "user", "content": response})
        return
    calls = message.pop("tool_calls", None)
    if calls:
        written = [_text(message.get("content")), *map(_call, tool_calls_of(calls))]
        message["content"] = "\n".join(part for part in written if part)
    conversation.append(message)


def _call(call: ToolCall) -> str:
    # As the model wrote it, also where that is no JSON: it is to see its own mistake.
    if not call.name:
        return f"{OPEN}\n{call.raw}\n{CLOSE}"
    return f'{OPEN}\n{{"name": {json.dumps(call.name)}, "arguments": {call.raw}}}\n{CLOSE}'


def _described(tools: Sequence[Any], choice: Any, *, one: bool) -> str:
    named = item(item(choice, "function"), "name") if isinstance(choice, dict) else None
    lines = [
        "# Tools",
        "You can call these functions:",
        "<tools>",
        *(json.dumps(item(tool, "function") or tool, ensure_ascii=False) for tool in tools),
        "</tools>",
        "To call one, write its name and arguments as JSON, in exactly this form:",
        f'{OPEN}\n{{"name": "…", "arguments": {{…}}}}\n{CLOSE}',
        "Then end your answer: you are told the result.",
    ]
    if named is not None:
        lines.append(f"Call {named} now.")
    elif choice == "required":
        lines.append("Call at least one of them now.")
    if one:
        lines.append("Call at most one in an answer.")
    return "\n".join(lines)


def _extended(content: Any, text: str) -> Any:
    if isinstance(content, list):
        return [*content, {"type": "text", "text": text}]
    return f"{content}\n\n{text}" if content else text


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(str(item(part, "text") or "") for part in content)
    return str(content or "")


class Read(NamedTuple):
    """A piece of an answer: text for the reader, or a whole call."""

    text: str = ""
    call: ToolCall | None = None


class PromptReader:
    """Tells the calls in an answer from its text, in whatever pieces it comes."""

    def __init__(self) -> None:
        self._held = ""
        self._inside = False
        self._trim = True  # space at the beginning, and after a call, belongs to the form
        self._calls = 0

    def feed(self, piece: str) -> list[Read]:
        """Take more of the answer; returns what is now certain."""
        self._held += piece
        found: list[Read] = []
        while True:
            before, mark, behind = self._held.partition(CLOSE if self._inside else OPEN)
            if not mark:
                break
            found += [self._call(before)] if self._inside else self._said(before.rstrip())
            self._inside = not self._inside
            self._trim = True
            self._held = behind
        if not self._inside:
            keep = _may_begin(self._held, OPEN)
            said, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
            # White space may turn out to stand before a call.
            bare = said.rstrip()
            self._held = said[len(bare) :] + self._held
            found += self._said(bare)
        return found

    def end(self) -> list[Read]:
        """What was held back. A call that was never closed is one all the same, and malformed if cut off."""
        held, self._held = self._held, ""
        if self._inside:
            return [self._call(held)]
        return self._said(held.rstrip() if self._calls else held)

    def _said(self, text: str) -> list[Read]:
        if self._trim and self._calls:
            text = text.lstrip()
        if not text:
            return []
        self._trim = False
        return [Read(text)]

    def _call(self, body: str) -> Read:
        self._calls += 1
        name, raw = _name_and_arguments(body.strip())
        return Read(call=ToolCall(f"call_{secrets.token_hex(12)}", name, raw))


def split(answer: str) -> tuple[str, list[ToolCall]]:
    """The text and the calls of a whole answer."""
    reader = PromptReader()
    pieces = [*reader.feed(answer), *reader.end()]
    return "".join(piece.text for piece in pieces), [piece.call for piece in pieces if piece.call]


def finish_of(reason: str | None, calls: Sequence[ToolCall]) -> str | None:
    """Why an answer ended, as a server that knows tools would have said it."""
    return "tool_calls" if calls and reason == "stop" else reason


def _name_and_arguments(body: str) -> tuple[str, str]:
    """Of one call; all that was written stands for the arguments where it is not of the form."""
    try:
        call = json.loads(body)
    except (ValueError, RecursionError):
        return "", body
    if not isinstance(call, dict) or not isinstance(call.get("name"), str) or "arguments" not in call:
        return "", body
    return call["name"], argument_text(call["arguments"])


def _may_begin(text: str, mark: str) -> int:
    """How much of the end of a text may be the beginning of the mark."""
    return next((n for n in range(min(len(text), len(mark) - 1), 0, -1) if mark.startswith(text[-n:])), 0)
