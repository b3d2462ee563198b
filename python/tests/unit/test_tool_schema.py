"""Functions as tools, calls held to them, and the form that calls have in plain text."""

from __future__ import annotations

import enum
import functools
import json
import pickle
from typing import Annotated, Any, Literal

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlxcel import LLM, MlxcelConfigError, MlxcelToolArgumentsError, Result, Tool, ToolCall
from mlxcel._docstring import described
from mlxcel._tool_prompt import PromptReader, split, told
from mlxcel._toolbox import Toolbox


class Unit(enum.Enum):
    METRE = "m"
    FOOT = "ft"


class Place(pydantic.BaseModel):
    name: str
    depth: int = 0


def measure(
    place: Place, unit: Unit, tags: list[str], *, exact: bool = False, limit: int | None = None
) -> str:
    """Measure a place.

    It takes a while.

    Args:
        place: Where to go,
            and how deep
        unit (Unit): What to count in
        tags: Words: many of them

    Returns:
        The measure.
    """
    return f"{place.name} {unit} {tags} {exact} {limit}"


def test_a_string_beside_a_hint_describes_it_and_beats_the_docstring() -> None:
    def wait(
        hours: Annotated[int, "How long"],
        why: Annotated[str, pydantic.Field(description="The field's")] = "",
        who: Annotated[str | None, 7, "A", "name"] = None,
    ) -> Annotated[str, "no argument"]:
        """Wait.

        :param hours: the docstring's
        :param why: the docstring's
        """
        return f"{hours} {why} {who}"

    fields = Tool(wait).parameters["properties"]
    assert [fields[name]["description"] for name in ("hours", "why", "who")] == [
        "How long",
        "The field's",
        "A name",
    ]


def test_a_schema_says_what_signature_and_docstring_say() -> None:
    wire = Tool(measure).as_dict()["function"]
    assert wire["name"] == "measure"
    assert wire["description"] == "Measure a place.\n\nIt takes a while."
    schema = wire["parameters"]
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["place", "unit", "tags"]
    fields = schema["properties"]
    assert fields["place"]["description"] == "Where to go, and how deep"
    assert fields["unit"]["description"] == "What to count in"
    assert fields["tags"] == {
        "type": "array",
        "items": {"type": "string"},
        "description": "Words: many of them",
    }
    assert fields["exact"] == {"type": "boolean", "default": False}
    assert fields["limit"]["default"] is None
    assert schema["$defs"]["Unit"]["enum"] == ["m", "ft"]
    assert schema["$defs"]["Place"]["additionalProperties"] is False


def test_arguments_come_as_the_hints_say() -> None:
    raw = '{"place": {"name": "Garda"}, "unit": "ft", "tags": ["a"]}'
    values = Tool(measure).validated(raw)
    assert values == {"place": Place(name="Garda"), "unit": Unit.FOOT, "tags": ["a"]}
    assert measure(**values) == "Garda Unit.FOOT ['a'] False None"


NUMPY = """Do it.

Parameters
----------
a : int
    The first,
    or so
b, c : str, optional
    The others

Returns
-------
int
    a : no parameter
"""
SPHINX = """Do it.

:param a: The first
:param str b: The second,
    in two lines
:returns: a: nothing
"""


@pytest.mark.parametrize(
    ("docstring", "arguments"),
    [
        (NUMPY, {"a": "The first, or so", "b": "The others", "c": "The others"}),
        (SPHINX, {"a": "The first", "b": "The second, in two lines"}),
        ("Do it.", {}),
        (
            "Do it.\n\nArgs:\n\n    a: The first\n\n        and more\n    b: x",
            {"a": "The first and more", "b": "x"},
        ),
    ],
)
def test_docstrings_of_each_style(docstring: str, arguments: dict[str, str]) -> None:
    assert described(docstring) == ("Do it.", arguments)


def test_no_docstring_and_one_of_sections_only() -> None:
    assert described(None) == ("", {})
    assert described("Args:\n    a: x") == ("", {"a": "x"})


def test_descriptions_in_annotations_and_names_that_pydantic_knows() -> None:
    def look(
        schema: Annotated[str, pydantic.Field(description="Which")], model_config: int, json: str = ""
    ) -> None:
        pass

    tool = Tool(look)
    assert tool.parameters["properties"]["schema"] == {"type": "string", "description": "Which"}
    raw = '{"schema": "s", "model_config": 1, "json": "{}"}'
    assert tool.validated(raw) == {"schema": "s", "model_config": 1, "json": "{}"}


def test_methods_and_partials_are_tools() -> None:
    class Shop:
        def price(self, of: str, at: float = 1.0) -> float:
            """Look a price up."""
            return at

    assert Tool(Shop().price).parameters["required"] == ["of"]
    partly = functools.partial(Shop().price, at=2.0)
    tool = Tool(partly, name="price")
    assert tool.description == "Look a price up."
    assert tool.parameters["properties"]["at"]["default"] == 2.0


def starred(*numbers: int) -> None: ...
def keyed(**numbers: int) -> None: ...
def positional(a: int, /) -> None: ...
def bare(a: int, b) -> None: ...  # type: ignore[no-untyped-def]
def unknown(a: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def misdescribed(a: int) -> None:
    """Do.

    Args:
        b: Gone
    """


class Opaque:
    pass


def opaque(a: Opaque) -> None: ...


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (starred, r"\*numbers: take a list"),
        (keyed, r"\*\*numbers: name the parameters"),
        (positional, "drop the '/'"),
        (bare, "'b' has no type hint"),
        (unknown, "hints cannot be read"),
        (misdescribed, "describes 'b'"),
        (opaque, "a hint of its"),
        (lambda a: a, "needs a name"),
        (Opaque, "a tool is a function"),
        ("add", "a tool is a function"),
    ],
)
def test_what_cannot_be_a_tool_says_why(function: Any, says: str) -> None:
    with pytest.raises(MlxcelConfigError, match=says):
        Tool(function)


def test_a_schema_by_hand_is_compared_with_the_signature() -> None:
    def add(a: int, b: int = 0) -> int:
        return a + b

    number = {"type": "integer", "minimum": 3}
    schema = {"type": "object", "properties": {"a": number}, "required": ["a"]}
    tool = Tool(add, parameters=schema)
    assert tool.parameters == schema
    assert tool.validated('{"a": 3}') == {"a": 3}
    box = Toolbox([tool])
    with pytest.raises(MlxcelToolArgumentsError, match="minimum"):
        _ = box.checked(ToolCall("1", "add", '{"a": 2}')).arguments
    with pytest.raises(MlxcelConfigError, match=r"name \['c'\]"):
        Tool(add, parameters={"type": "object", "properties": {"a": number, "c": number}, "required": ["a"]})
    with pytest.raises(MlxcelConfigError, match=r"needs \['a'\]"):
        Tool(add, parameters={"type": "object", "properties": {"a": number}})
    with pytest.raises(MlxcelConfigError, match="no JSON schema"):
        Tool(add, parameters={"type": "string"})


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@pytest.mark.parametrize(
    "raw", ["", "{", "[]", "null", '{"a": 1}', '{"a": 1, "b": "x"}', '{"a": 1, "b": 2, "c": 3}']
)
def test_what_does_not_fit_raises_where_it_is_read(raw: str) -> None:
    call = Toolbox([add]).checked(ToolCall("1", "add", raw))
    assert not call.valid
    with pytest.raises(MlxcelToolArgumentsError) as caught:
        _ = call.arguments
    assert (caught.value.raw, caught.value.name, caught.value.id) == (raw, "add", "1")


def test_checked_calls_compare_and_pickle() -> None:
    call = Toolbox([add]).checked(ToolCall("1", "add", '{"a": 1, "b": "2"}'))
    assert call == ToolCall("1", "add", '{"a": 1, "b": "2"}')
    assert call.arguments == {"a": 1, "b": 2}
    copy = pickle.loads(pickle.dumps(Result(tool_calls=[call]))).tool_calls[0]
    assert copy.arguments == {"a": 1, "b": 2}


def test_toolboxes_want_lists_of_different_tools() -> None:
    for tools in (add, "add", {"type": "function"}, [add, add], [3]):
        with pytest.raises(MlxcelConfigError):
            Toolbox(tools)  # type: ignore[arg-type]
    plain = {"type": "function", "function": {"name": "f", "parameters": {}}}
    assert Toolbox([plain]).wire == [plain]


CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>'


@pytest.mark.parametrize(
    ("answer", "text", "calls"),
    [
        ("Hello.", "Hello.", []),
        (" a < b ", " a < b ", []),
        (CALL, "", [("add", '{"a": 1, "b": 2}')]),
        (f"Let me see.\n{CALL}\n{CALL}\nDone.", "Let me see.Done.", [("add", '{"a": 1, "b": 2}')] * 2),
        ("<tool_call>{broken</tool_call>", "", [("", "{broken")]),
        ('<tool_call>{"name": "add"}</tool_call>', "", [("", '{"name": "add"}')]),
        ('<tool_call>{"name": "add", "arguments": [1]}</tool_call>', "", [("add", "[1]")]),
        ('Now <tool_call>{"name": "add", "argu', "Now", [("", '{"name": "add", "argu')]),
        ("a <tool_c", "a <tool_c", []),
    ],
)
def test_calls_in_text(answer: str, text: str, calls: list[tuple[str, str]]) -> None:
    written, found = split(answer)
    assert written == text
    assert [(call.name, call.raw) for call in found] == calls
    assert len({call.id for call in found}) == len(found)


@given(
    st.lists(st.sampled_from(["<tool_call>", "</tool_call>", "<", "tool", " ", "\n", "x", CALL])), st.data()
)
def test_calls_in_text_whatever_its_pieces(parts: list[str], data: st.DataObject) -> None:
    answer = "".join(parts)
    reader, pieces, rest = PromptReader(), [], answer
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        pieces += reader.feed(rest[:size])
        rest = rest[size:]
    pieces += reader.end()
    text, calls = split(answer)
    assert "".join(piece.text for piece in pieces) == text
    assert [(p.call.name, p.call.raw) for p in pieces if p.call] == [(c.name, c.raw) for c in calls]


def test_a_conversation_about_tools_in_plain_text() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1'}}
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "1 + 2?"},
        {"role": "assistant", "content": None, "tool_calls": [call, call]},
        {"role": "tool", "tool_call_id": "1", "content": "3"},
        {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "4"}]},
    ]
    params = {"tools": ["x"], "tool_choice": "required", "parallel_tool_calls": False, "temperature": 0}
    conversation, left = told(messages, [Tool(add).as_dict()], params)
    assert left == {"temperature": 0}
    system, user, assistant, results = conversation
    assert system["content"].startswith("Be brief.\n\n# Tools\n")
    assert '"Add two numbers."' in system["content"]
    assert "Call at least one of them now.\nCall at most one" in system["content"]
    assert user == messages[1]
    written = '<tool_call>\n{"name": "add", "arguments": {"a": 1}\n</tool_call>'
    assert assistant == {"role": "assistant", "content": f"{written}\n{written}"}
    response = "<tool_response>\n{}\n</tool_response>"
    assert results == {"role": "user", "content": f"{response.format(3)}\n{response.format(4)}"}
    assert messages[0]["content"] == "Be brief.", "what the caller gave stays as it is"
    assert messages[2]["tool_calls"] == [call, call]
    assert told([{"role": "user", "content": "x"}], [], {})[0] == [{"role": "user", "content": "x"}]


def test_the_protocol_is_said_once_and_is_one_of_two() -> None:
    wrong: Any = "auto"
    with pytest.raises(ValueError, match="'native' or 'prompt', not 'auto'"):
        LLM(base_url="http://127.0.0.1:9/v1", tool_protocol=wrong)
    with LLM(base_url="http://127.0.0.1:9/v1") as llm, pytest.raises(TypeError, match="said once"):
        llm.chat("x", tools=[add], tool_protocol="prompt")


def test_literals_and_unions() -> None:
    def paint(colour: Literal["red", "blue"], layers: int | str) -> None:
        pass

    schema = Tool(paint).parameters["properties"]
    assert schema["colour"]["enum"] == ["red", "blue"]
    assert json.dumps(schema)
