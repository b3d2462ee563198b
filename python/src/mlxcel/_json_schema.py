"""JSON schemas, and JSON that is still being written. Pure."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NoReturn

from ._shape import MismatchError, NotJsonError
from .errors import MlxcelConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SchemaShape", "beginning", "closed", "is_beginning", "is_closed", "is_schema", "may_go_on"]

_TYPES = frozenset({"object", "array", "string", "number", "integer", "boolean", "null"})
_MARKS = frozenset({"$ref", "$defs", "$schema", "anyOf", "oneOf", "allOf", "enum", "const", "properties"})
_NUMBER_AT_END = re.compile(r"[-+.0-9eE]+\Z")
_PART = re.compile(r"\s*(-?[0-9]*\.?[0-9]*([eE][-+]?[0-9]*)?|t|tr|tru|f|fa|fal|fals|n|nu|nul)")
_PLACES = ("properties", "$defs", "definitions", "patternProperties", "dependentSchemas")


def is_schema(wanted: Mapping[str, Any]) -> bool:
    """Whether a dict is a JSON schema, rather than OpenAI's `{"type": "json_schema", …}` or its like."""
    kind = wanted.get("type")
    if kind is None:
        return bool(_MARKS & wanted.keys())
    return kind in _TYPES if isinstance(kind, str) else isinstance(kind, list)


def closed(schema: Any) -> Any:
    """A schema made from a type, as it is sent.

    Objects take no further fields: what the type would ignore need not be
    written. `uniqueItems` goes, which grammars cannot enforce; a set does
    without duplicates anyway.
    """
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    shut = {
        name: {key: closed(part) for key, part in value.items()}
        if name in _PLACES and isinstance(value, dict)
        else value
        if name in ("default", "examples", "const", "enum")
        else closed(value)
        for name, value in schema.items()
        if name != "uniqueItems"
    }
    if "properties" in shut:
        shut.setdefault("additionalProperties", False)
    return shut


def beginning(text: str) -> Any:
    """The value of JSON that has been written in part; ValueError while there is none.

    A string may be incomplete, a number not: its next digit would change it.
    """
    import pydantic_core

    return pydantic_core.from_json(_NUMBER_AT_END.sub("", text), allow_partial="trailing-strings")


def is_beginning(text: str) -> bool:
    """Whether the text is the first part of an object, an array or a string, and not all of it."""
    text = text.lstrip()
    if not text.startswith(("{", "[", '"')):
        return False
    try:
        beginning(text)
        json.JSONDecoder().raw_decode(text)
    except json.JSONDecodeError:
        return True
    except (ValueError, RecursionError):
        return False
    return False  # a whole value, with something else behind it


def may_go_on(text: str) -> bool:
    """Whether more text could make JSON of this: nothing yet, an open mark, or part of a number or a word."""
    return bool(_PART.fullmatch(text)) or is_beginning(text)


def is_closed(text: str) -> bool:
    """Whether JSON that parses is surely whole: only a number may have had more digits to come."""
    return not text[-1:].isdigit()


class SchemaShape:
    """Answers that are plain data, held to a JSON schema."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._schema = schema
        self._validator: Any = None

    def read(self, text: str) -> Any:
        """The data; see `Shape`."""
        try:
            value = json.loads(text, parse_constant=_no_number)
        except ValueError as error:
            raise NotJsonError(str(error)) from error
        except RecursionError as error:
            raise MismatchError("it is nested too deeply") from error
        problem = self._problem(value)
        if problem is not None:
            raise MismatchError(problem)
        return value

    def partial(self, text: str) -> Any:
        """The data so far, as it is: a schema says nothing about what is not yet there."""
        try:
            return beginning(text)
        except ValueError:
            return None

    def _problem(self, value: Any) -> str | None:
        import jsonschema
        import referencing

        if self._validator is None:
            # An own registry: references to elsewhere are never fetched.
            kind = jsonschema.validators.validator_for(self._schema, default=jsonschema.Draft202012Validator)
            self._validator = kind(self._schema, registry=referencing.Registry())
        try:
            error = next(self._validator.iter_errors(value), None)
        except (
            jsonschema.exceptions.UnknownType,
            referencing.exceptions.Unresolvable,
            TypeError,
            re.error,
        ) as wrong:
            raise MlxcelConfigError(f"response_format is not a JSON schema one could use: {wrong}") from wrong
        if error is None:
            return None
        place = ".".join(str(part) for part in error.absolute_path) or "the answer"
        return f"{place}: {error.message}"


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
