"""typing's own TypedDict, which pydantic does not take before Python 3.12."""

from __future__ import annotations

import typing
from typing import Annotated, Any, NotRequired, Required

import pydantic
import pytest

from mlxcel import MlxcelConfigError, Tool
from mlxcel._structured import as_format
from mlxcel._typed_dicts import readable


class Place(typing.TypedDict):
    """Where it is."""

    name: str
    depth: NotRequired[int]


class Walk(Place, total=False):
    stops: list[Place]
    then: Walk | None
    hours: Required[Annotated[int, pydantic.Field(ge=1)]]


WALK = {"name": "a", "hours": 2, "stops": [{"name": "b", "depth": 1}], "then": {"name": "c", "hours": 1}}


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Place, '{"name": "a"}', {"name": "a"}),
        (list[Place], '[{"name": "a", "depth": 1}]', [{"name": "a", "depth": 1}]),
        (typing.Optional[Place], "null", None),  # noqa: UP045 - the older way is another type
        (Place | None, '{"name": "a"}', {"name": "a"}),
        (dict[str, tuple[Place, int]], '{"k": [{"name": "a"}, 1]}', {"k": ({"name": "a"}, 1)}),
        (Annotated[list[Place], pydantic.Field(max_length=1)], '[{"name": "a"}]', [{"name": "a"}]),
        (Walk, pydantic.TypeAdapter(Any).dump_json(WALK).decode(), WALK),
    ],
)
def test_it_is_read_wherever_it_stands(kind: Any, text: str, value: object) -> None:
    shape = as_format(kind).shape
    assert shape is not None
    assert shape.read(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"name": "a"}',
        '{"hours": 2}',
        '{"name": "a", "hours": 0}',
        '{"name": "a", "hours": 2, "then": {"name": "c"}}',
        '{"name": "a", "hours": 2, "stops": [{}]}',
    ],
)
def test_what_is_required_stays_required(text: str) -> None:
    adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(readable(Walk))
    with pytest.raises(pydantic.ValidationError):
        adapter.validate_json(text)


def test_the_schema_and_what_grows() -> None:
    wanted = as_format(Place)
    schema = wanted.wire["json_schema"]["schema"]
    assert (schema["title"], schema["description"], schema["required"]) == ("Place", "Where it is.", ["name"])
    assert wanted.shape is not None
    assert wanted.shape.partial('{"name": "a", "de') == {"name": "a"}


def test_a_parameter_of_a_tool() -> None:
    def go(place: Place, more: list[Place] | None = None) -> Place:
        """Go there."""
        return (more or [place])[0]

    tool = Tool(go)
    assert tool.validated('{"place": {"name": "a"}}') == {"place": {"name": "a"}}
    assert "depth" not in tool.parameters["$defs"]["Place"]["required"]


def test_a_name_that_means_nothing_is_told() -> None:
    class Lost(typing.TypedDict):
        where: Nowhere  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(MlxcelConfigError, match="Nowhere"):
        as_format(Lost)


def test_other_types_stay_themselves() -> None:
    for kind in (
        int,
        list[int],
        int | None,
        Annotated[int, 3],
        typing.Literal["a"],
        tuple[()],
        pydantic.BaseModel,
    ):
        assert readable(kind) is kind
