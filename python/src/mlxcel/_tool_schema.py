"""Python functions as tools: their schema from their signature, and arguments held to it. No I/O."""

from __future__ import annotations

import contextlib
import functools
import inspect
import re
import typing
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from . import _json_schema, _typed_dicts
from ._docstring import described
from .errors import MlxcelConfigError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = ["MisfitError", "Tool"]

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class MisfitError(Exception):
    """Arguments that are a JSON object but not what the function takes; the message says where."""


class Tool:
    """A function that a model may ask to have called.

    The name is the function's, the description its docstring's text, and each
    parameter is described by the docstring (Google's, NumPy's or Sphinx's
    style), by `Annotated[int, "…"]` or by `Annotated[int,
    pydantic.Field(description=…)]`; hints say what is taken. Plain functions
    given as `tools=` become this by themselves: make one only to say something
    differently.

    `parameters` is a JSON schema in place of the one made from the hints. It
    is compared with the signature: what it lets the model write must be
    parameters, and what the function needs must be required.

    Raises MlxcelConfigError for a function that cannot be one: `*args`,
    `**kwargs`, positional-only parameters, a missing hint, a hint that has no
    JSON schema, no usable name, a docstring that describes another function.
    """

    name: str
    description: str
    parameters: dict[str, Any]
    """The JSON schema of the arguments."""
    function: Callable[..., Any]

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        description: str | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        given: object = function
        if not callable(given) or isinstance(given, type):
            raise MlxcelConfigError(f"a tool is a function, not {given!r}")
        self.function = function
        self.name = _name_of(function, name)
        about = described(_docstring(function))
        self.description = about.summary if description is None else description
        signature, hints = self._signature()
        for stranger in about.arguments.keys() - signature.parameters.keys():
            raise self._wrong(f"its docstring describes {stranger!r}, which is none of its parameters")
        self._adapter = self._adapted(signature, hints)
        if parameters is None:
            self.parameters = self._schema(signature, about.arguments | _notes(hints))
        else:
            self.parameters = dict(parameters)
            self._compare(signature)
        self._own_schema = None if parameters is None else _json_schema.SchemaShape(self.parameters)

    @property
    def is_async(self) -> bool:
        """Whether the function has to be awaited."""
        return _is_async(self.function)

    def as_dict(self) -> dict[str, Any]:
        """The tool in OpenAI's form."""
        function: dict[str, Any] = {"name": self.name}
        if self.description:
            function["description"] = self.description
        function["parameters"] = self.parameters
        return {"type": "function", "function": function}

    def validated(self, raw: str) -> dict[str, Any]:
        """The function's arguments from a JSON object. Raises MisfitError."""
        import pydantic

        from ._shape import MismatchError, NotJsonError

        try:
            if self._own_schema is not None:
                self._own_schema.read(raw)
            return dict(self._adapter.validate_json(raw))
        except pydantic.ValidationError as error:
            found = error.errors(include_url=False, include_context=False, include_input=False)
            raise MisfitError(
                "; ".join(f"{_place(one['loc'])}: {one['msg']}" for one in found[:5])
            ) from error
        except (MismatchError, NotJsonError) as error:
            raise MisfitError(str(error)) from error

    def __repr__(self) -> str:
        return f"Tool({self.name!r}, {', '.join(self.parameters.get('properties', {}))})"

    def _signature(self) -> tuple[inspect.Signature, dict[str, Any]]:
        try:
            signature = inspect.signature(self.function)
        except (TypeError, ValueError) as error:
            raise self._wrong(f"it has no signature to read ({error}): wrap it in a function") from error
        try:
            hints = typing.get_type_hints(_hinted(self.function), include_extras=True)
            hints = {
                name: _typed_dicts.readable(hints[name]) for name in signature.parameters if name in hints
            }
        except (NameError, TypeError) as error:
            raise self._wrong(f"its type hints cannot be read: {error}") from error
        for parameter in signature.parameters.values():
            self._check(parameter, hints)
        return signature, hints

    def _check(self, parameter: inspect.Parameter, hints: Mapping[str, Any]) -> None:
        name, kind = parameter.name, parameter.kind
        if kind is parameter.VAR_POSITIONAL:
            raise self._wrong(f"a model cannot fill *{name}: take a list[…] instead")
        if kind is parameter.VAR_KEYWORD:
            raise self._wrong(f"a model cannot fill **{name}: name the parameters, or take a dict[str, …]")
        if kind is parameter.POSITIONAL_ONLY:
            raise self._wrong(f"{name!r} is positional-only, and models give arguments by name: drop the '/'")
        if name not in hints:
            raise self._wrong(
                f"its parameter {name!r} has no type hint, so a model cannot know what to write"
            )

    def _adapted(self, signature: inspect.Signature, hints: Mapping[str, Any]) -> TypeAdapter[Any]:
        import pydantic
        import typing_extensions

        fields = {
            name: hints[name]
            if parameter.default is parameter.empty
            else typing_extensions.NotRequired[hints[name]]
            for name, parameter in signature.parameters.items()
        }
        make: Any = typing_extensions.TypedDict  # type checkers want the fields spelt out
        taken = make(self.name, fields)
        taken.__pydantic_config__ = pydantic.ConfigDict(extra="forbid")
        try:
            return pydantic.TypeAdapter(taken)
        except (pydantic.PydanticUserError, pydantic.errors.PydanticUndefinedAnnotation, TypeError) as error:
            raise self._wrong(f"a hint of its is nothing that JSON could be read as: {error}") from error

    def _schema(self, signature: inspect.Signature, said: Mapping[str, str]) -> dict[str, Any]:
        import pydantic
        import pydantic_core

        try:
            schema: dict[str, Any] = _json_schema.closed(self._adapter.json_schema())
        except pydantic.PydanticUserError as error:
            raise self._wrong(f"a hint of its has no JSON schema: {error}") from error
        schema.pop("title", None)
        for name, field in schema.setdefault("properties", {}).items():
            if isinstance(field.get("title"), str):
                del field["title"]  # the name once more
            if said.get(name):
                field.setdefault("description", said[name])
            default = signature.parameters[name].default
            if default is not inspect.Parameter.empty:
                # Where JSON has no words for it, the model need only know that it may leave it out.
                with contextlib.suppress(pydantic_core.PydanticSerializationError):
                    field.setdefault("default", pydantic_core.to_jsonable_python(default))
        return {"type": "object", **schema}

    def _compare(self, signature: inspect.Signature) -> None:
        properties = self.parameters.get("properties", {})
        if self.parameters.get("type") != "object" or not isinstance(properties, Mapping):
            raise self._wrong("its `parameters` are no JSON schema of an object")
        required = set(self.parameters.get("required", ()))
        taken = signature.parameters
        needed = {name for name, one in taken.items() if one.default is one.empty}
        if strangers := sorted((properties.keys() | required) - taken.keys()):
            raise self._wrong(f"its `parameters` name {strangers}, which it does not take")
        if missing := sorted(needed - (required & properties.keys())):
            raise self._wrong(f"it needs {missing}, which its `parameters` do not require")

    def _wrong(self, what: str) -> MlxcelConfigError:
        return MlxcelConfigError(f"{self.name!r} cannot be a tool: {what}")


def _name_of(function: Callable[..., Any], name: str | None) -> str:
    found = getattr(function, "__name__", None) if name is None else name
    if not isinstance(found, str) or not _NAME.fullmatch(found):
        raise MlxcelConfigError(
            f"a tool needs a name of at most 64 letters, digits, '_' or '-', not {found!r}: "
            "write Tool(function, name='…')"
        )
    return found


def _hinted(function: Callable[..., Any]) -> Any:
    """Where the hints stand."""
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    return function if inspect.isroutine(function) else type(function).__call__


def _docstring(function: Callable[..., Any]) -> str | None:
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.getdoc(function if inspect.isroutine(function) else type(function).__call__)


def _notes(hints: Mapping[str, Any]) -> dict[str, str]:
    """What plain strings in `Annotated` say of the parameters."""
    told = {
        name: [note for note in getattr(hint, "__metadata__", ()) if isinstance(note, str)]
        for name, hint in hints.items()
    }
    return {name: " ".join(notes) for name, notes in told.items() if notes}


def _is_async(function: Callable[..., Any]) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - the method itself is asked
    )


def _place(location: tuple[int | str, ...]) -> str:
    return ".".join(map(str, location)) or "the arguments"
