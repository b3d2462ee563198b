"""`response_format`: what is sent for it, and how strictly an answer is held to it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pickle
from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, RootModel, field_validator, model_validator
from typing_extensions import TypedDict

from mlxcel import (
    MlxcelConfigError,
    MlxcelFormatError,
    MlxcelRefusalError,
    MlxcelResponseError,
    MlxcelTruncatedError,
    Result,
    ToolCall,
)
from mlxcel._generation import Generation
from mlxcel._structured import as_format, settle


class Person(BaseModel):
    name: str
    age: Annotated[int, Field(ge=0)]
    nickname: str | None = None


@dataclasses.dataclass(slots=True, frozen=True)
class Point:
    x: int
    y: int = 7
    tags: list[str] = dataclasses.field(default_factory=list)


class Movie(TypedDict):
    title: str
    year: int


class Colour(Enum):
    RED = "red"
    GREEN = "green"


class Team(BaseModel):
    name: str
    people: list[Person] = Field(alias="members")
    by_city: dict[str, Person] = {}
    captain: Person | None = None


class Node(BaseModel):
    value: int
    children: list[Node] = []


class Names(RootModel[list[str]]):
    pass


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"type": "integer", "minimum": 3}},
    "required": ["a"],
}
BOB = '{"name": "Bob", "age": 4}'


def read(wanted: Any, text: str = "", finish_reason: str = "stop", **more: Any) -> Result:
    """A result as the client builds it."""
    result = Result(text, finish_reason=finish_reason, **more)
    asked = Generation.chat("hi", {}, wanted)
    fault = asked.settle(result)
    if fault is not None:
        raise fault
    return result


def partial(wanted: Any, text: str) -> Any:
    shape = as_format(wanted).shape
    assert shape is not None
    return shape.partial(text)


@pytest.mark.parametrize(
    ("wanted", "text", "value"),
    [
        (Person, BOB, Person(name="Bob", age=4)),
        (Point, '{"x": 1}', Point(1)),
        (Movie, '{"title": "Heat", "year": 1995}', {"title": "Heat", "year": 1995}),
        (Colour, '"red"', Colour.RED),
        (Literal["a", "b"], '"b"', "b"),
        (int, " 42\n", 42),
        (float, "1.5", 1.5),
        (bool, "true", True),
        (str, '"hi"', "hi"),
        (list[int], "[1, 2]", [1, 2]),
        (set[int], "[1, 2, 2]", {1, 2}),
        (tuple[int, str], '[1, "a"]', (1, "a")),
        (dict[str, date], '{"d": "2020-02-03"}', {"d": date(2020, 2, 3)}),
        (int | None, "null", None),
        (Decimal, '"1.10"', Decimal("1.10")),
        (list[Person], f"[{BOB}]", [Person(name="Bob", age=4)]),
        (Names, '["a"]', Names(["a"])),
        (Annotated[int, Field(ge=3)], "3", 3),
        (SCHEMA, '{"a": 3, "b": 1}', {"a": 3, "b": 1}),
        ({"enum": ["x", 1]}, "1", 1),
        ({"type": "json_object"}, "{}", {}),
        ({"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}, '{"a": 5}', {"a": 5}),
    ],
    ids=str,
)
def test_parsed(wanted: Any, text: str, value: Any) -> None:
    result = read(wanted, text)
    assert result.parsed == value
    assert type(result.parsed) is type(value)
    assert result == text, "the text stays what the model wrote"
    other = pickle.loads(pickle.dumps(result))
    assert other.parsed == value


def test_nothing_asked_for_nothing_parsed() -> None:
    assert read(None, "5").parsed is None
    assert read({"type": "text"}, "5").parsed is None
    assert Generation.chat("hi", {}).params == {}


def sent(wanted: Any) -> Any:
    return Generation.chat("hi", {}, wanted).params["response_format"]["json_schema"]


def test_what_is_sent() -> None:
    assert sent(int) == {"name": "int", "schema": {"type": "integer"}}
    assert sent(Person)["name"] == "Person"
    assert sent(list[Person])["schema"]["$defs"]["Person"]["required"] == ["name", "age"]
    assert sent(SCHEMA) == {"name": "answer", "schema": SCHEMA}
    assert sent({**SCHEMA, "title": "My form!"})["name"] == "My_form_"
    whole = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": True}}
    for theirs in (whole, {"type": "json_object"}, {"type": "text"}, {"type": "regex", "pattern": "a"}):
        assert Generation.chat("hi", {}, theirs).params["response_format"] is theirs


def test_objects_of_a_type_are_closed() -> None:
    """Else a small model writes fields that nobody asked for, until it is cut off."""
    team = sent(Team)["schema"]
    assert team["additionalProperties"] is False
    assert team["$defs"]["Person"]["additionalProperties"] is False
    assert team["properties"]["by_city"]["additionalProperties"] == {"$ref": "#/$defs/Person"}

    class Open(BaseModel, extra="allow"):
        properties: int  # a field with the name of a keyword

    assert sent(Open)["schema"]["additionalProperties"] is True
    assert sent(Open)["schema"]["properties"]["properties"]["type"] == "integer"
    assert "uniqueItems" not in json.dumps(sent(set[int]))


def test_extra_body_wins_here_too() -> None:
    asked = Generation.chat("hi", {"extra_body": {"response_format": {"type": "json_object"}}}, int)
    assert "response_format" not in asked.params
    result = Result("{}", finish_reason="stop")
    assert asked.settle(result) is None
    assert result.parsed == {}


@pytest.mark.parametrize("wrong", ["json", 5, ["a"], b"x", lambda x: x, Person(name="a", age=1), object()])
def test_what_is_no_format(wrong: Any) -> None:
    with pytest.raises(MlxcelConfigError, match="response_format"):
        as_format(wrong)


class Impossible:
    pass


def test_a_type_without_a_schema() -> None:
    with pytest.raises(MlxcelConfigError, match="Impossible"):
        as_format(Impossible)
    with pytest.raises(MlxcelConfigError, match="Callable"):
        from collections.abc import Callable

        as_format(dict[str, Callable[[], int]])


def test_a_schema_that_makes_no_sense_is_named_if_the_server_did_not() -> None:
    for wrong in ({"type": "object", "properties": {"a": {"type": 5}}}, {"$ref": "#/nowhere"}):
        with pytest.raises(MlxcelConfigError, match="response_format"):
            read(wrong, '{"a": 1}')
    with pytest.raises(MlxcelConfigError, match="response_format"):
        read({"$ref": "http://nowhere.invalid/schema"}, "{}")


@pytest.mark.parametrize(
    "text",
    [
        "Sure! Here it is",
        "",
        "   ",
        f"```json\n{BOB}\n```",
        BOB + " and so on",
        BOB + BOB,
        "{name: 1}",
        "'a'",
    ],
)
@pytest.mark.parametrize(
    "wanted", [Person, SCHEMA, {"type": "json_object"}], ids=["type", "schema", "object"]
)
def test_a_server_that_ignored_the_format_is_found_out(wanted: Any, text: str) -> None:
    with pytest.raises(MlxcelFormatError, match="ignored response_format") as caught:
        read(wanted, text)
    assert type(caught.value) is MlxcelFormatError
    assert (caught.value.reason, caught.value.text) == ("not_json", text)
    assert caught.value.result == text


@pytest.mark.parametrize(
    ("wanted", "text", "where"),
    [
        (Person, '{"name": "Bob"}', "age"),
        (Person, '{"name": "Bob", "age": -4}', "age"),
        (Colour, '"blue"', "red"),
        (list[int], '[1, "x"]', "1: "),
        (int, "[1]", "the answer"),
        (Movie, '{"title": "Heat"}', "year"),
        (SCHEMA, '{"a": 2}', "a: 2 is less"),
        (SCHEMA, "[]", "the answer"),
        ({"type": "json_object"}, "[]", "the answer"),
        ({"type": "json_object", "schema": SCHEMA}, '{"a": "x"}', "a: "),
    ],
)
def test_json_of_another_form(wanted: Any, text: str, where: str) -> None:
    with pytest.raises(MlxcelFormatError, match=where) as caught:
        read(wanted, text)
    assert caught.value.reason == "mismatch"
    assert isinstance(caught.value, MlxcelResponseError)


@pytest.mark.parametrize(
    ("wanted", "text", "partial"),
    [
        (Person, '{"name": "Bo', Person.model_construct(_fields_set={"name"}, name="Bo", age=None)),
        (Person, "", None),
        (SCHEMA, '{"a": 3', {}),
        (int, "4", None),  # it may have become 42
        (float, "1.", None),
        (int, "-", None),
        (bool, "tru", None),
        (list[int], "[1, 2", [1]),
        ({"type": "json_object"}, '{"a": [1, 2', {"a": [1]}),
    ],
)
def test_truncated(wanted: Any, text: str, partial: Any) -> None:
    with pytest.raises(MlxcelTruncatedError, match="max_tokens") as caught:
        read(wanted, text, "length")
    assert (caught.value.reason, caught.value.text) == ("length", text)
    assert caught.value.partial == partial
    assert caught.value.result == text
    other = pickle.loads(pickle.dumps(caught.value))
    assert (str(other), other.partial) == (str(caught.value), partial)


def test_prose_that_is_cut_off_is_not_a_truncated_object() -> None:
    for text in ("Sure! Here", "{name: ", BOB + " and", "12 apples"):
        with pytest.raises(MlxcelFormatError, match="ignored") as caught:
            read(Person, text, "length")
        assert caught.value.reason == "not_json"


def test_cut_off_right_at_its_end_is_whole() -> None:
    assert read(Person, BOB, "length").parsed == Person(name="Bob", age=4)
    assert read(bool, "true", "length").parsed is True
    assert read(int, "42 ", "length").parsed == 42


def test_other_ways_to_be_cut_off() -> None:
    with pytest.raises(MlxcelTruncatedError, match="stop string") as caught:
        read(Person, '{"name": "Bo', "stop")
    assert caught.value.reason == "stop"
    with pytest.raises(MlxcelTruncatedError, match="content filter"):
        read(Person, '{"name": "Bo', "content_filter")


def test_a_refusal_is_a_refusal() -> None:
    with pytest.raises(MlxcelRefusalError, match="I will not") as caught:
        read(Person, "", refusal="I will not")
    assert (caught.value.reason, caught.value.text) == ("refusal", "I will not")


def test_a_tool_call_instead_is_no_error_until_the_answer_is_wanted() -> None:
    result = read(Person, "", "tool_calls", tool_calls=[ToolCall("c", "f", "{}")])
    assert result.tool_calls
    with pytest.raises(MlxcelFormatError, match="tool_calls") as caught:
        _ = result.parsed
    assert caught.value.reason == "tool_calls"
    with pytest.raises(MlxcelTruncatedError):
        read(Person, '{"name"', "tool_calls")  # it says so, but calls nothing
    for text in ("Let me see.", "[1"):
        beside = read(Person, text, "tool_calls", tool_calls=[ToolCall("c", "f", "{}")])
        with pytest.raises(MlxcelFormatError, match="called a tool"):
            _ = beside.parsed
    both = read(Person, BOB, "tool_calls", tool_calls=[ToolCall("c", "f", "{}")])
    assert both.parsed.name == "Bob"


def test_several_choices_are_each_parsed() -> None:
    good, bad = Result(BOB, finish_reason="stop"), Result('{"name"', finish_reason="length")
    result = Result(BOB, finish_reason="stop").with_others([bad, good])
    shape = as_format(Person).shape
    assert shape is not None
    fault = settle(result, shape)
    assert isinstance(fault, MlxcelTruncatedError)
    assert fault.text == '{"name"'
    assert isinstance(fault.result, Result)
    first, second, third = fault.result.choices
    assert first.parsed == third.parsed == Person(name="Bob", age=4)
    for _ in range(2):
        with pytest.raises(MlxcelTruncatedError):
            _ = second.parsed
    copied = pickle.loads(pickle.dumps(fault))
    assert copied.result.choices[2].parsed == third.parsed


@pytest.mark.parametrize(
    ("wanted", "text", "expected"),
    [
        (Team, "{", {"name": None, "people": None, "by_city": {}, "captain": None}),
        (Team, '{"name": "A", "members": [', {"name": "A", "people": []}),
        (Team, '{"members": [{"name": "B"', {"people": [{"name": "B", "age": None, "nickname": None}]}),
        (Team, '{"captain": {"name": "C', {"captain": {"name": "C", "age": None, "nickname": None}}),
        (Team, '{"by_city": {"Ulm": {"age": 3, ', {"by_city": {"Ulm": {"name": None, "age": 3}}}),
        (Node, '{"value": 1, "children": [{"value": 2}, {"chi', {"value": 1, "children": [{"value": 2}, {}]}),
        (Names, '["a", "b', ["a", "b"]),
        (Movie, '{"title": "H', {"title": "H"}),
        (Colour, '"re', None),
        (Colour, '"red', Colour.RED),
        (list[Colour], '["red", "gr', [Colour.RED]),
        (list[Movie], '[{"title": "H"}, {"ti', [{"title": "H"}, {}]),
        (int | Movie, '{"title": "H', {"title": "H"}),
        (Annotated[list[int], "note"], "[1, 23", [1]),
        (tuple[int, int], "[1, ", None),
        (str, '"a\\', "a"),
        (Annotated[list[int], Field(min_length=2)], "[", []),
        (dict[str, Annotated[list[int], Field(min_length=2)]], '{"a": [1', {"a": []}),
        (SCHEMA, '{"b": [1, {"c": "d', {"b": [1, {"c": "d"}]}),
        (Person, "nonsense", None),
        (Person, '{"age": -4, "name": "x', {"name": "x", "age": None}),
    ],
    ids=str,
)
def test_partial(wanted: Any, text: str, expected: Any) -> None:
    def plain(value: Any) -> Any:
        if isinstance(value, BaseModel):
            return plain(value.root) if isinstance(value, RootModel) else plain(vars(value))
        if isinstance(value, dict):
            return {name: plain(part) for name, part in value.items()}
        return [plain(part) for part in value] if isinstance(value, list) else value

    def within(part: Any, whole: Any) -> bool:
        if isinstance(part, dict):
            return all(name in whole and within(part[name], whole[name]) for name in part)
        if isinstance(part, list):
            return len(part) == len(whole) and all(map(within, part, whole))
        return bool(part == whole)

    found = partial(wanted, text)
    assert within(expected, plain(found)), found


def test_partial_dataclasses_are_instances() -> None:
    point = partial(Point, '{"tags": ["a')
    assert isinstance(point, Point)
    assert repr(point) == "Point(x=None, y=7, tags=['a'])"
    person = partial(Person, '{"name": "B')
    assert isinstance(person, Person)
    assert person.model_fields_set == {"name"}
    assert person.model_dump(exclude_unset=True) == {"name": "B"}


def test_a_class_s_own_validators_see_whole_objects_only() -> None:
    class Span(BaseModel):
        start: int
        end: int

        @field_validator("end")
        @classmethod
        def even(cls, value: int) -> int:
            if value % 2:
                raise ValueError("odd")
            return value

        @model_validator(mode="after")
        def ordered(self) -> Span:
            if self.start > self.end:
                raise ValueError("start after end")
            return self

    assert partial(Span, '{"start": 3, ').start == 3
    with pytest.raises(MlxcelFormatError, match="start after end"):
        read(Span, '{"start": 3, "end": 2}')


@given(
    st.builds(
        Team,
        name=st.text(),
        members=st.lists(
            st.builds(Person, name=st.text(), age=st.integers(0), nickname=st.none()), max_size=3
        ),
        by_city=st.just({}),
        captain=st.none(),
    ),
    st.data(),
)
def test_a_partial_object_only_grows(team: Team, data: st.DataObject) -> None:
    """What is shown of a list's earlier items and of complete fields is what the whole has."""
    text = team.model_dump_json(by_alias=True)
    seen = partial(Team, text[: data.draw(st.integers(0, len(text)))])
    if seen is None:
        return
    if seen.name is not None:
        assert team.name.startswith(seen.name)
    for mine, whole in zip(seen.people or [], team.people, strict=False):
        assert mine.age in (None, whole.age)
        assert mine.name is None or whole.name.startswith(mine.name)
    assert partial(Team, text) == team


CLASSES: list[Any] = [Person, Point, Movie, Team, Node, Names, Colour]
FORMATS: list[Any] = [*CLASSES, int, float, bool, str, list[int], SCHEMA, {"type": "json_object"}]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(
    st.sampled_from(FORMATS),
    st.text() | JSON.map(json.dumps) | st.sampled_from(["[" * 5000, '{"a":' * 5000, "1" * 5000]),
    st.sampled_from(["stop", "length", "tool_calls"]),
    st.integers(0),
)
def test_whatever_comes_is_a_value_or_a_typed_error(wanted: Any, text: str, ended: str, cut: int) -> None:
    text = text[: cut % (len(text) + 1)] or text
    seen = partial(wanted, text)
    with contextlib.suppress(MlxcelFormatError):
        result = read(wanted, text, ended)
        assert seen == result.parsed or not text.rstrip().endswith(("}", "]", '"'))
