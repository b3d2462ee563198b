"""Fields of what a server sent, as objects of the SDK, which validates nothing, or as dicts."""

from __future__ import annotations

from typing import Any

from .errors import MlxcelResponseError

__all__ = ["item", "items", "text"]


def item(thing: Any, name: str) -> Any:
    """A field of an object of the SDK, or of a dict; None when it is not there.

    The SDK's objects are asked past pydantic, which takes its time to say that something is missing.
    """
    if isinstance(thing, dict):
        return thing.get(name)
    fields = getattr(thing, "__dict__", None)
    if fields is None:
        return None
    value = fields.get(name)
    if value is None and (extra := getattr(thing, "__pydantic_extra__", None)):
        return extra.get(name)
    return value


def text(thing: Any, name: str) -> str:
    """A field of text, empty when it is not there; of parts, as some servers send them, all their text."""
    value = item(thing, name)
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, list):
        return "".join(text(part, "text") for part in value)
    raise MlxcelResponseError(f"the reply has a {name!r} that is no text: {str(value)[:80]}")


def items(thing: Any, name: str) -> list[Any]:
    """A field that is a list, empty when it is not there."""
    value = item(thing, name)
    if value is None or isinstance(value, list):
        return value or []
    raise MlxcelResponseError(f"the reply has a {name!r} that is no list: {str(value)[:80]}")
