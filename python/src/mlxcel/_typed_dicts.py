"""`typing.TypedDict` as pydantic can read it. Pure.

Before Python 3.12 pydantic takes `typing_extensions.TypedDict` only: typing's own do not tell which of
their fields a subclass inherited as required. What a class knows of itself is enough to write it again.
"""

from __future__ import annotations

import operator
import sys
import types
import typing
from typing import Annotated, Any, Literal, Union

import typing_extensions

__all__ = ["readable"]

_QUALIFIED = (typing.Required, typing.NotRequired)


def readable(kind: Any) -> Any:
    """The same type, each of typing's TypedDicts in it written as one of typing_extensions."""
    return kind if sys.version_info >= (3, 12) else _written(kind, {})


def _written(kind: Any, known: dict[Any, Any]) -> Any:
    if type(kind).__module__ == "typing" and typing.is_typeddict(kind):
        return known[kind] if kind in known else _written_dict(kind, known)
    origin: Any = typing.get_origin(kind)
    arguments = typing.get_args(kind)
    if origin is None or origin is Literal:
        return kind
    if origin is Annotated:
        inner = _written(arguments[0], known)
        return kind if inner is arguments[0] else Annotated[(inner, *kind.__metadata__)]
    written = tuple(_written(argument, known) for argument in arguments)
    if all(map(operator.is_, written, arguments)):
        return kind
    return (Union if origin is types.UnionType else origin)[written]


def _written_dict(kind: Any, known: dict[Any, Any]) -> Any:
    make: Any = typing_extensions.TypedDict  # type checkers want the fields spelt out
    new = known[kind] = make(kind.__name__, {})  # at first without fields, of which one may be itself
    required = kind.__required_keys__
    fields = {}
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        qualifier: Any = typing.get_origin(hint)
        if qualifier in _QUALIFIED:  # also where `from __future__ import annotations` hid it from the class
            hint = typing.get_args(hint)[0]
        else:
            qualifier = typing.Required if name in required else typing.NotRequired
        fields[name] = qualifier[_written(hint, known)]
    names = {name for name, field in fields.items() if typing.get_origin(field) is typing.Required}
    new.__annotations__ = fields
    new.__required_keys__, new.__optional_keys__ = frozenset(names), frozenset(fields.keys() - names)
    for attribute in ("__doc__", "__module__", "__qualname__", "__pydantic_config__"):
        if attribute in vars(kind):
            setattr(new, attribute, vars(kind)[attribute])
    return new
