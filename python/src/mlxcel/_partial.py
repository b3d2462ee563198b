"""Values of a type from JSON that is still being written: what is there, validated. Pure.

Whatever of the text validates as it stands is taken. Where it does not, a
model, a dataclass or a TypedDict gets those of its fields that do, a list
those of its items, and so on inwards. A class's own validators run on whole
objects only, since they may look at fields that are yet to come.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping, MutableMapping, MutableSequence, Sequence
from functools import lru_cache
from typing import Annotated, Any, NotRequired, Required, Union, get_args, get_origin

import pydantic
import pydantic_core
from typing_extensions import ReadOnly, get_type_hints, is_typeddict

from ._json_schema import beginning

__all__ = ["partial"]

_LISTS = (list, Sequence, MutableSequence)
_DICTS = (dict, Mapping, MutableMapping)


class _Nothing:
    """Stands for "nothing to see yet", since None may be a value."""


_NOTHING = _Nothing()


def partial(wanted: Any, text: str) -> Any:
    """As much of a `wanted` as the text holds, or None while that is nothing.

    Of a model or a dataclass it is an instance in which a field that is yet to
    come has its default, or else None; a TypedDict lacks it.
    """
    try:
        data = beginning(text)
    except ValueError:
        return None
    value = _grown(wanted, data)
    return None if value is _NOTHING else value


def _grown(wanted: Any, data: Any) -> Any:
    try:
        return _adapter(wanted).validate_json(pydantic_core.to_json(data))
    except pydantic.ValidationError:
        pass
    except Exception:  # noqa: BLE001 - a validator of the user's that is not made for less than all
        return _NOTHING
    wanted, origin = _plain(wanted)
    if origin in (Union, types.UnionType):
        grown = (_grown(member, data) for member in get_args(wanted))
        return next((value for value in grown if value is not _NOTHING), _NOTHING)
    if isinstance(wanted, type) and issubclass(wanted, pydantic.RootModel):
        root = _grown(wanted.model_fields["root"].annotation, data)
        return root if root is _NOTHING else wanted.model_construct(root)
    if isinstance(data, dict):
        return _grown_object(wanted, origin, data)
    if isinstance(data, list) and (wanted in _LISTS or origin in _LISTS):
        if not data:
            return []
        (item,) = get_args(wanted) or (Any,)
        *whole, last = data
        try:  # all but the last in one go: a long list is looked at anew for each token
            done = _adapter(list[item]).validate_json(pydantic_core.to_json(whole))  # type: ignore[valid-type]
        except Exception:  # noqa: BLE001 - as above
            done = [_grown(item, part) for part in whole]
        return [value for value in (*done, _grown(item, last)) if value is not _NOTHING]
    return _NOTHING


def _grown_object(wanted: Any, origin: Any, data: dict[str, Any]) -> Any:
    if wanted in _DICTS or origin in _DICTS:
        _, kind = get_args(wanted) or (str, Any)
        grown = {name: _grown(kind, value) for name, value in data.items()}
        return {name: value for name, value in grown.items() if value is not _NOTHING}
    cls = wanted if isinstance(wanted, type) or is_typeddict(wanted) else origin
    fields = _fields(cls)
    if fields is None:
        return _NOTHING
    there = {
        field.name: value
        for field in fields
        if field.key in data and (value := _grown(field.wanted, data[field.key])) is not _NOTHING
    }
    return _instance(cls, fields, there)


def _instance(cls: Any, fields: Sequence[_Field], there: dict[str, Any]) -> Any:
    if is_typeddict(cls):
        return there
    values = {field.name: there[field.name] if field.name in there else field.default() for field in fields}
    if issubclass(cls, pydantic.BaseModel):
        return cls.model_construct(_fields_set=set(there), **values)
    made = object.__new__(cls)
    for name, value in values.items():
        object.__setattr__(made, name, value)
    return made


@dataclasses.dataclass(frozen=True)
class _Field:
    name: str
    key: str
    wanted: Any
    default: Any


@lru_cache(maxsize=256)
def _fields(cls: Any) -> tuple[_Field, ...] | None:
    """The fields of a class; None for one that has none, or is no class."""
    if is_typeddict(cls):
        hints = get_type_hints(cls, include_extras=True)
        return tuple(_Field(name, name, _unqualified(kind), _none) for name, kind in hints.items())
    if not isinstance(cls, type):
        return None
    if issubclass(cls, pydantic.BaseModel):
        return tuple(
            _Field(
                name,
                _key(name, info),
                Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation,
                _default_of(info),
            )
            for name, info in cls.model_fields.items()
        )
    if dataclasses.is_dataclass(cls):
        hints = get_type_hints(cls, include_extras=True)
        return tuple(
            _Field(field.name, field.name, hints[field.name], _default_of(field))
            for field in dataclasses.fields(cls)
        )
    return None


def _key(name: str, info: Any) -> str:
    """The field's name in JSON."""
    alias = info.validation_alias or info.alias
    if isinstance(alias, pydantic.AliasChoices):
        alias = alias.choices[0]
    return alias if isinstance(alias, str) else name


def _default_of(field: Any) -> Any:
    """A function for a field's default. A dataclass's may be a pydantic `Field`."""
    default, factory = field.default, field.default_factory
    if isinstance(default, pydantic.fields.FieldInfo):
        return _default_of(default)
    if default is not dataclasses.MISSING and default is not pydantic_core.PydanticUndefined:
        return lambda: default
    if factory in (None, dataclasses.MISSING) or getattr(
        field, "default_factory_takes_validated_data", False
    ):
        return _none
    return factory


def _none() -> None:
    return None


def _plain(wanted: Any) -> tuple[Any, Any]:
    """A type without aliases and annotations, and its origin."""
    while True:
        origin = get_origin(wanted)
        if origin is Annotated:
            wanted = get_args(wanted)[0]
        elif hasattr(wanted, "__value__"):  # type X = …
            wanted = wanted.__value__
        else:
            return wanted, origin


def _unqualified(kind: Any) -> Any:
    while get_origin(kind) in (Required, NotRequired, ReadOnly):
        (kind,) = get_args(kind)
    return kind


def _adapter(wanted: Any) -> pydantic.TypeAdapter[Any]:
    try:
        return _remembered(wanted)
    except TypeError:  # not hashable
        return pydantic.TypeAdapter(wanted)


@lru_cache(maxsize=256)
def _remembered(wanted: Any) -> pydantic.TypeAdapter[Any]:
    return pydantic.TypeAdapter(wanted)
