"""A line of the input, and the record that answers it. Pure."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from .._generation import Generation

if TYPE_CHECKING:
    from ..results import Result

__all__ = ["Line", "MalformedLineError", "Request", "answered", "failed", "parse"]

_HOMES = ("mlxcel.errors", "openai", "builtins")
_NOT_OF_THE_BODY = ("extra_headers", "extra_query", "stream")


class MalformedLineError(ValueError):
    """A line that asks for nothing that could be sent."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the input, as it is in the file."""

    number: int
    """From 1."""
    raw: bytes


@dataclass(frozen=True, slots=True)
class Request:
    """What a line asks for."""

    asked: Generation
    model: str | None


def parse(line: Line) -> Request:
    """What to send. Raises MalformedLineError."""
    fields = _object(line)
    fields.pop("id", None)
    if ("prompt" in fields) == ("messages" in fields):
        raise MalformedLineError("a line has either a prompt or messages")
    for name in _NOT_OF_THE_BODY:
        if name in fields:
            raise MalformedLineError(f"{name} is no field for a line")
    model = fields.pop("model", None)
    if not isinstance(model, str | None):
        raise MalformedLineError("model is a string")
    form = fields.pop("response_format", None)
    if "prompt" in fields:
        prompt = fields.pop("prompt")
        if not isinstance(prompt, str) and not _is_list_of(prompt, int):
            raise MalformedLineError("prompt is a string or a list of token ids, one prompt a line")
        return Request(Generation.completion(prompt, fields, form), model)
    messages = fields.pop("messages")
    if not isinstance(messages, str) and not _is_list_of(messages, dict):
        raise MalformedLineError("messages is a list of objects, or a string for one message of the user")
    return Request(Generation.chat(messages, fields, form), model)


def answered(line: Line, result: Result[Any]) -> bytes:
    """The record of an answer."""
    record = {"line": line.number, **_id(line), **_choice(result)}
    if result.usage is not None:
        record["usage"] = {name: count for name, count in asdict(result.usage).items() if count is not None}
    if len(result.choices) > 1:
        record["choices"] = [_choice(choice) for choice in result.choices]
    return _encoded(record)


def failed(line: Line, error: Exception) -> bytes:
    """The record of a line without an answer. `error` comes right after `line`, see `_output`."""
    told: dict[str, Any] = {"type": _kind(error), "message": f"line {line.number}: {error}"}
    for name, attribute in (("status", "status_code"), ("code", "code"), ("text", "text")):
        value = getattr(error, attribute, None)
        if isinstance(value, str | int) and value != "":
            told[name] = value
    return _encoded({"line": line.number, "error": told, **_id(line)})


def _object(line: Line) -> dict[str, Any]:
    try:
        fields = json.loads(line.raw.decode(), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:  # not UTF-8 either
        raise MalformedLineError(f"not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise MalformedLineError("a line is a JSON object with a prompt or messages")
    return fields


def _no_number(name: str) -> None:
    raise MalformedLineError(f"{name} is no number of JSON")


def _id(line: Line) -> dict[str, Any]:
    try:
        fields = _object(line)
    except MalformedLineError:
        return {}
    return {"id": fields["id"]} if "id" in fields else {}


def _choice(result: Result[Any]) -> dict[str, Any]:
    choice: dict[str, Any] = {"text": str(result), "finish_reason": result.finish_reason}
    if result.reasoning:
        choice["reasoning"] = result.reasoning
    if result.refusal:
        choice["refusal"] = result.refusal
    if result.tool_calls:
        choice["tool_calls"] = [call.as_dict() for call in result.tool_calls]
    if result.logprobs is not None:
        choice["logprobs"] = _plain(result.logprobs)
    return choice


def _plain(thing: Any) -> Any:
    return thing.to_dict() if hasattr(thing, "to_dict") else thing


def _kind(error: Exception) -> str:
    """The name that an `except` would use: some classes of ours are private children of those."""
    if isinstance(error, MalformedLineError):
        return "malformed_line"
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ in _HOMES)


def _is_list_of(value: object, kind: type) -> bool:
    return isinstance(value, list) and all(type(part) is kind for part in value)


def _encoded(record: dict[str, Any]) -> bytes:
    # A lone surrogate, which JSON can name and UTF-8 cannot hold, stays the escape that it was.
    return json.dumps(record, ensure_ascii=False, default=str).encode("utf-8", "backslashreplace") + b"\n"
