"""What `response_format` asks for: what to send, and how an answer is held to it. Pure.

A type goes through pydantic's `TypeAdapter`, so that a model, a dataclass, a
TypedDict, an Enum, a Literal or a plain type such as `list[int]` all work
alike. The server is sent its JSON schema; whatever comes back is validated
here too, because a server may ignore the format, and many do.
"""

from __future__ import annotations

import re
from functools import lru_cache
from types import FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from . import _json_schema, _typed_dicts
from ._shape import MismatchError, NotJsonError
from .errors import MlxcelConfigError, MlxcelFormatError, MlxcelRefusalError, MlxcelTruncatedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pydantic import TypeAdapter

    from ._shape import Shape
    from .results import Result

__all__ = ["Format", "ResponseFormat", "as_format", "settle"]

ResponseFormat: TypeAlias = "type[Any] | Mapping[str, Any] | Any"
"""A pydantic model, a dataclass, a TypedDict, an Enum, a Literal, a plain type, a JSON schema, or OpenAI's
own `{"type": "json_schema", …}` and `{"type": "json_object"}`."""

_NO_FORMATS = (str, bytes, int, float, list, tuple, set, FunctionType)
_CUT_OFF = ("length", "content_filter")
_SHOWN = 200
_LISTED = 5


class Format(NamedTuple):
    """A `response_format` in OpenAI's form, and what its answers are held to (None: to nothing)."""

    wire: Mapping[str, Any]
    shape: Shape | None


def as_format(wanted: ResponseFormat) -> Format:
    """Read what a caller gave; MlxcelConfigError for what is no type and no schema."""
    if isinstance(wanted, dict):
        return _from_dict(wanted)
    if wanted is None or isinstance(wanted, _NO_FORMATS):
        raise MlxcelConfigError(
            f"response_format is a type or a JSON schema, not {wanted!r}: write int, list[int], a pydantic "
            "model, a dataclass, …, or {'type': 'json_object'} for any JSON object"
        )
    try:
        hash(wanted)
    except TypeError:
        return _from_type(wanted)
    return _remembered(wanted)


def settle(result: Result[Any], shape: Shape) -> MlxcelFormatError | None:
    """Validate each choice: its value or its error is what `parsed` will give.

    Returns the first error, which the whole call raises; that a tool was called instead is none.
    """
    first = None
    for choice in result.choices:
        try:
            choice.with_parsed(_read(choice, shape))
        except MlxcelFormatError as fault:
            fault.result = result
            choice.with_fault(_without_frames(fault))
            if first is None and not choice.tool_calls:
                first = fault
    return first


def _without_frames(fault: MlxcelFormatError) -> MlxcelFormatError:
    """The error alone: its frames would keep all that was at hand for as long as the result lives."""
    link: BaseException | None = fault
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__
    return fault


def _read(choice: Result[Any], shape: Shape) -> Any:
    text, ended = str(choice), choice.finish_reason
    if choice.refusal is not None:
        raise MlxcelRefusalError(
            f"the model refused: {choice.refusal}", text=choice.refusal, reason="refusal"
        )
    try:
        value = shape.read(text)
    except (MismatchError, NotJsonError) as error:
        raise _explained(error, choice, shape) from error
    if ended in _CUT_OFF and not _json_schema.is_closed(text):
        raise _truncated(choice, shape)  # a number may have gone on
    return value


def _explained(error: MismatchError | NotJsonError, choice: Result[Any], shape: Shape) -> MlxcelFormatError:
    text, cut_off = str(choice), choice.finish_reason in _CUT_OFF
    if choice.tool_calls:
        message = "the model called a tool instead of giving the answer: look at tool_calls"
        return MlxcelFormatError(message, text=text, reason="tool_calls")
    if isinstance(error, MismatchError):
        if cut_off and not _json_schema.is_closed(text):
            return _truncated(choice, shape)
        message = f"the answer is JSON, but not what response_format asks for: {error}"
        return MlxcelFormatError(message, text=text, reason="mismatch")
    if _json_schema.is_beginning(text) or (cut_off and _json_schema.may_go_on(text)):
        return _truncated(choice, shape)
    message = (
        f"the answer is not JSON but {_shown(text)}: the server ignored response_format (some know it in "
        "chat only, or not at all), or the model has no such answer"
    )
    return MlxcelFormatError(message, text=text, reason="not_json")


def _truncated(choice: Result[Any], shape: Shape) -> MlxcelTruncatedError:
    text, reason = str(choice), choice.finish_reason or ""
    why = {
        "length": "at max_tokens or the end of the context: raise max_tokens, or ask for less",
        "content_filter": "by the server's content filter",
    }.get(reason, f"in the middle, though the server says it finished ({reason!r}): a stop string?")
    return MlxcelTruncatedError(
        f"the answer was cut off {why}; it ends {_shown(text[-_SHOWN:])}",
        text=text,
        reason=reason,
        partial=shape.partial(text),
    )


def _shown(text: str) -> str:
    return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}…"


def _from_dict(wanted: Mapping[str, Any]) -> Format:
    kind = wanted.get("type")
    if _json_schema.is_schema(wanted):
        name = _name(wanted.get("title"))
        return Format(_wire(name, wanted), _json_schema.SchemaShape(wanted))
    if kind == "json_schema":
        inner = wanted.get("json_schema")
        schema = inner.get("schema") if isinstance(inner, dict) else None
        return Format(wanted, _json_schema.SchemaShape(schema if isinstance(schema, dict) else {}))
    if kind == "json_object":
        schema = wanted.get("schema")  # llama-server's way to give one
        plain: dict[str, Any] = {"type": "object"}
        return Format(wanted, _json_schema.SchemaShape(schema if isinstance(schema, dict) else plain))
    return Format(wanted, None)  # text, or something that the server may know


def _from_type(wanted: Any) -> Format:
    import pydantic

    try:
        readable = _typed_dicts.readable(wanted)
        adapter: TypeAdapter[Any] = pydantic.TypeAdapter(readable)
        schema = adapter.json_schema()
    except (pydantic.PydanticUserError, NameError, TypeError) as error:
        raise MlxcelConfigError(
            f"response_format: no JSON schema can be made of {wanted!r}: {error}"
        ) from error
    shape = _TypeShape(readable, adapter)
    return Format(_wire(_name(getattr(wanted, "__name__", None)), _json_schema.closed(schema)), shape)


_remembered: Callable[[Any], Format] = lru_cache(maxsize=128)(_from_type)


class _TypeShape:
    def __init__(self, wanted: Any, adapter: TypeAdapter[Any]) -> None:
        self._wanted = wanted
        self._adapter = adapter

    def read(self, text: str) -> Any:
        import pydantic

        try:
            return self._adapter.validate_json(text)
        except pydantic.ValidationError as error:
            found = error.errors(include_url=False, include_context=False, include_input=False)
            if found[0]["type"] == "json_invalid" and not found[0]["loc"]:
                raise NotJsonError(found[0]["msg"]) from error
            raise MismatchError(_listed(found)) from error

    def partial(self, text: str) -> Any:
        from ._partial import partial

        return partial(self._wanted, text)


def _listed(problems: Sequence[Mapping[str, Any]]) -> str:
    shown = [f"{'.'.join(map(str, p['loc'])) or 'the answer'}: {p['msg']}" for p in problems[:_LISTED]]
    return "; ".join(shown) + ("; …" if len(problems) > _LISTED else "")


def _wire(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": name, "schema": schema}}


def _name(name: object) -> str:
    """As OpenAI wants it: at most 64 letters, digits, underscores and hyphens."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", str(name or ""))[:64] or "answer"
