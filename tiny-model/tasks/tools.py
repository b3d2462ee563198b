"""Calling a function that the system prompt declares, and saying what it returned."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from . import arithmetic
from . import words as w
from .base import Draw, Example, turn

NO_TOOL = "I have no tool for that."


@dataclass(frozen=True)
class Parameter:
    names: str  # the spellings it is declared under
    type: str
    value: Callable[[Draw], Any]
    description: str = ""


@dataclass(frozen=True)
class Tool:
    """A function as a kind: `asks` and `tells` name its parameters p0, p1, … ."""

    names: str
    description: str
    parameters: tuple[Parameter, ...]
    asks: tuple[str, ...]
    result: Callable[[Draw, list[Any]], dict[str, Any]] = lambda draw, values: {"status": "ok"}
    tells: str = "Done."
    optional: tuple[int, ...] = field(default=())


CITY = Parameter("city location place town", "string", w.city, "The name of the city")
PERSON = Parameter("name person user to recipient", "string", w.name, "Who")
DATE = Parameter("date day", "string", w.date, "The date as YYYY-MM-DD")
TIME = Parameter("time at start", "string", w.clock, "The time as HH:MM")
TEXT = Parameter("text message body content", "string", lambda d: " ".join(w.words(d, d.randint(1, 3))), "The text")
SUBJECT = Parameter("subject title topic", "string", lambda d: w.word(d), "The subject")
WORD = Parameter("query term keyword q", "string", lambda d: " ".join(w.words(d, d.randint(1, 2))), "What to look for")
SMALL = Parameter("count number amount n quantity", "integer", lambda d: d.randint(1, 99), "How many")
MINUTES = Parameter("minutes duration length", "integer", lambda d: d.randint(1, 90), "Minutes")
LEFT = Parameter("a x first left", "integer", lambda d: d.randint(0, 99), "The first number")
RIGHT = Parameter("b y second right", "integer", lambda d: d.randint(0, 99), "The second number")
UNIT = Parameter("unit units scale", "string", lambda d: d.choice(["celsius", "fahrenheit"]), "celsius or fahrenheit")
PRODUCT = Parameter("product item article", "string", lambda d: d.choice(w.THINGS + w.FOODS), "The product")
COLOUR = Parameter("colour color", "string", lambda d: d.choice(w.COLOURS), "The colour")
SYMBOL = Parameter("symbol ticker stock", "string", lambda d: w.made_up(d).upper()[:4], "The ticker symbol")
FROM = Parameter(
    "from source base", "string", lambda d: d.choice(["EUR", "USD", "GBP"]), "The currency to convert from"
)
INTO = Parameter("to target", "string", lambda d: d.choice(["JPY", "CHF", "SEK"]), "The currency to convert to")
AMOUNT = Parameter("amount value sum", "integer", lambda d: d.randint(1, 999), "The amount")
ROOM = Parameter(
    "room place area",
    "string",
    lambda d: d.choice("kitchen bedroom bathroom garage hall office garden cellar".split()),
    "The room",
)
LEVEL = Parameter("level brightness percent value", "integer", lambda d: d.randint(0, 100), "From 0 to 100")


def _sky(draw: Draw) -> str:
    return draw.choice(["sunny", "cloudy", "rainy", "windy", "snowy", "foggy", "clear"])


TOOLS = (
    Tool(
        "get_weather weather get_current_weather weather_now lookup_weather", "Get the current weather in a city", (CITY, UNIT),
        ("What is the weather in {p0}?", "How is the weather in {p0}?", "What's the weather like in {p0}?",
         "Is it raining in {p0}?", "How warm is it in {p0}?", "Weather in {p0}?", "What is the weather in {p0} today?"),
        lambda d, v: {"temperature": d.randint(-9, 39), "condition": _sky(d)},
        "It is {temperature} degrees and {condition} in {p0}.", optional=(1,),
    ),
    Tool(
        "get_weather get_weather_in weather_report get_current_weather", "Get the weather in a city in a unit", (CITY, UNIT),
        ("What is the weather in {p0} in {p1}?", "How warm is it in {p0}, in {p1}?", "Weather in {p0} in {p1}, please."),
        lambda d, v: {"temperature": d.randint(-9, 99), "condition": _sky(d)},
        "It is {temperature} degrees and {condition} in {p0}.",
    ),
    Tool(
        "get_time current_time get_current_time local_time", "Get the current time in a city", (CITY,),
        ("What time is it in {p0}?", "Tell me the time in {p0}.", "What's the time in {p0}?"),
        lambda d, v: {"time": w.clock(d)}, "It is {time} in {p0}.",
    ),
    Tool(
        "add sum add_numbers plus", "Add two numbers", (LEFT, RIGHT),
        ("Add {p0} and {p1}.", "What is {p0} + {p1}?", "What is {p0} plus {p1}?", "Use the tool to add {p0} and {p1}."),
        lambda d, v: {"result": v[0] + v[1]}, "The result is {result}.",
    ),
    Tool(
        "multiply times product multiply_numbers", "Multiply two numbers", (LEFT, RIGHT),
        ("Multiply {p0} by {p1}.", "What is {p0} * {p1}?", "What is {p0} times {p1}?"),
        lambda d, v: {"result": v[0] * v[1]}, "The result is {result}.",
    ),
    Tool(
        "send_email email send_mail mail", "Send an email", (PERSON, SUBJECT, TEXT),
        ("Send an email to {p0} about {p1} saying {p2}.", "Email {p0} with the subject {p1} and the text {p2}.",
         "Write a mail to {p0}, subject {p1}: {p2}"),
        tells="The email to {p0} is sent.",
    ),
    Tool(
        "send_message message text_message send_text", "Send a message to a person", (PERSON, TEXT),
        ("Tell {p0}: {p1}", "Send {p0} the message: {p1}", "Message {p0} that {p1}.", "Text {p0}: {p1}"),
        tells="I told {p0}.",
    ),
    Tool(
        "set_timer timer start_timer", "Start a timer", (MINUTES,),
        ("Set a timer for {p0} minutes.", "Start a {p0} minute timer.", "Wake me in {p0} minutes.", "Timer: {p0} minutes."),
        tells="The timer is set for {p0} minutes.",
    ),
    Tool(
        "set_alarm alarm add_alarm", "Set an alarm", (TIME,),
        ("Set an alarm for {p0}.", "Wake me up at {p0}.", "Alarm at {p0}, please."), tells="The alarm is set for {p0}.",
    ),
    Tool(
        "search web_search find search_web lookup", "Search the web", (WORD,),
        ("Search for {p0}.", "Search the web for {p0}.", "Look up {p0}.", "Find pages about {p0}."),
        lambda d, v: {"results": d.randint(1, 99)}, "I found {results} results for {p0}.",
    ),
    Tool(
        "get_stock_price stock_price get_stock quote", "Get the price of a stock", (SYMBOL,),
        ("What is the price of {p0}?", "What is the stock price of {p0}?", "How much is {p0} stock?"),
        lambda d, v: {"price": d.randint(1, 999)}, "{p0} costs {price}.",
    ),
    Tool(
        "convert_currency convert exchange currency", "Convert an amount between currencies", (AMOUNT, FROM, INTO),
        ("Convert {p0} {p1} to {p2}.", "How much is {p0} {p1} in {p2}?", "Change {p0} {p1} into {p2}."),
        lambda d, v: {"result": d.randint(1, 999)}, "{p0} {p1} is {result} {p2}.",
    ),
    Tool(
        "book_table reserve_table book_restaurant", "Book a table in a restaurant", (SMALL, DATE, TIME),
        ("Book a table for {p0} on {p1} at {p2}.", "Reserve a table for {p0} people on {p1} at {p2}."),
        tells="The table for {p0} is booked on {p1} at {p2}.",
    ),
    Tool(
        "create_event add_event new_event calendar_add", "Put an event in the calendar", (SUBJECT, DATE),
        ("Put {p0} in my calendar on {p1}.", "Create an event {p0} on {p1}.", "Add {p0} to my calendar for {p1}."),
        tells="I put {p0} in your calendar on {p1}.",
    ),
    Tool(
        "order_product buy order place_order", "Order a product", (PRODUCT, SMALL),
        ("Order {p1} of the {p0}.", "Buy {p1} times {p0}.", "I want to order {p0}, {p1} pieces."),
        lambda d, v: {"order": d.randint(100, 999)}, "I ordered {p1} of {p0}, the order number is {order}.",
    ),
    Tool(
        "set_light light lamp turn_on_light", "Set the light in a room", (ROOM, LEVEL),
        ("Set the light in the {p0} to {p1}.", "Dim the {p0} light to {p1} percent.", "Light in the {p0}: {p1}."),
        tells="The light in the {p0} is at {p1}.",
    ),
    Tool(
        "paint_room paint set_colour", "Paint a room", (ROOM, COLOUR),
        ("Paint the {p0} {p1}.", "Make the {p0} {p1}.", "I want the {p0} in {p1}."), tells="The {p0} is {p1} now.",
    ),
    Tool(
        "list_files files show_files ls", "List the files", (), ("List my files.", "Show me the files.", "Which files are there?"),
        lambda d, v: {"files": w.words(d, d.randint(1, 3))}, "The files are: {files}",
    ),
    Tool(
        "get_date today current_date", "Get the current date", (), ("What is the date today?", "Which day is it?", "What's today's date?"),
        lambda d, v: {"date": w.date(d)}, "Today is {date}.",
    ),
    Tool(
        "get_user find_user user_info get_customer", "Look up a user", (PERSON,),
        ("Who is {p0}?", "Look up the user {p0}.", "Find the user {p0}."),
        lambda d, v: {"city": w.city(d), "age": d.randint(18, 90)}, "{p0} is {age} and lives in {city}.",
    ),
)  # fmt: skip

VERBS = """open close start stop create delete update show check play record move copy lock unlock
rent share archive rename scan clean charge load save print test pause resume""".split()
NOUNS = """door window file project playlist ticket invoice car report task note camera printer account
photo song video page record server job backup folder robot engine""".split()
EXTRAS = (
    CITY, PERSON, DATE, TIME, SUBJECT, SMALL, COLOUR, ROOM, LEVEL, MINUTES,
    Parameter("id", "integer", lambda d: d.randint(1, 9999), "The number"),
    Parameter("size", "string", lambda d: d.choice(["small", "medium", "large"]), "small, medium or large"),
    Parameter("label tag key", "string", w.made_up, "A label"),
    Parameter("speed rate", "number", lambda d: d.randint(0, 9) + d.randint(1, 9) / 10, "The speed"),
)  # fmt: skip


def generic(draw: Draw) -> Tool:
    """A tool nobody has seen: a verb, a noun and up to three parameters spelled out in the request."""
    verb = draw.choice(VERBS)
    noun = w.made_up(draw) if draw.maybe(0.4 if draw.split == "train" else 0.2) else draw.choice(NOUNS)
    extras = tuple(draw.sample(EXTRAS, draw.choice([0, 1, 1, 1, 2, 2])))
    spelled = draw.choice(["{n} {v}", "{n} {v}", "the {n} is {v}", "{n}: {v}", "{n}={v}"])
    said = " and ".join(spelled.format(n=f"{{n{i}}}", v=f"{{p{i}}}") for i in range(len(extras)))
    heads = [
        f"{verb.capitalize()} the {noun}",
        f"Please {verb} the {noun}",
        f"I want to {verb} a {noun}",
        f"Can you {verb} the {noun}",
    ]
    joins = [" with ", ", ", ": "]
    asks = tuple(
        head + (draw.choice(joins) + said if said else "") + draw.choice(["", ".", "?" if "Can" in head else "."])
        for head in heads
    )
    return Tool(
        draw.choice([f"{verb}_{noun}", f"{verb}_{noun}", f"{noun}_{verb}", f"{verb}{noun.capitalize()}"]),
        f"{verb.capitalize()} the {noun}", extras, asks, tells=f"Done: {verb} the {noun}.",
    )  # fmt: skip


@dataclass(frozen=True)
class Declared:
    """A tool with its spellings fixed, and one request for it."""

    tool: Tool
    name: str
    names: tuple[str, ...]
    values: tuple[Any, ...]
    ask: str

    @property
    def declaration(self) -> dict[str, Any]:
        properties = {
            name: {"type": p.type, **({"description": p.description} if p.description else {})}
            for name, p in zip(self.names, self.tool.parameters, strict=True)
        }
        required = [name for i, name in enumerate(self.names) if i not in self.tool.optional]
        parameters = {"type": "object", "properties": properties, "required": required}
        return {
            "type": "function",
            "function": {"name": self.name, "description": self.tool.description, "parameters": parameters},
        }

    def filled(self, text: str, extra: dict[str, Any]) -> str:
        slots = {f"p{i}": value for i, value in enumerate(self.values)}
        return text.format(**slots, **{f"n{i}": name for i, name in enumerate(self.names)}, **extra)

    @property
    def request(self) -> str:
        return self.filled(self.ask, {})

    @property
    def call(self) -> dict[str, Any]:
        arguments = {
            name: value
            for i, (name, value) in enumerate(zip(self.names, self.values, strict=True))
            if i not in self.tool.optional
        }
        return {"type": "function", "function": {"name": self.name, "arguments": arguments}}


def odd_name(draw: Draw, spelling: str) -> str:
    """A name that nothing but its declaration tells: only copying gets it right."""
    made, verb, noun = w.made_up(draw), draw.choice(VERBS), draw.choice(NOUNS)
    return draw.choice(
        [
            made, f"{made}_{noun}", f"{verb}_{made}", f"{made}{noun.capitalize()}", f"{verb}{made.capitalize()}",
            f"{verb}_{noun}", f"{noun}_{verb}", f"{verb}{noun.capitalize()}", f"{spelling}_{made}", f"{made}_{spelling}",
            f"{spelling}_{draw.randint(2, 9)}", f"my_{spelling}", f"{spelling}_now", spelling.replace("_", "-"),
        ]
    )  # fmt: skip


def spell(draw: Draw, tool: Tool) -> Declared:
    """Fixes the spellings. Training prefers no name of a tool, and often uses an odd one."""
    names: list[str] = []
    plain = draw.maybe(0.3)
    for parameter in tool.parameters:
        spellings = [name for name in parameter.names.split() if name not in names]
        names.append(spellings[0] if draw.maybe(0.6) else draw.choice(spellings))
    if plain:
        tool = Tool(
            tool.names, tool.description, tuple(Parameter(p.names, p.type, p.value) for p in tool.parameters),
            tool.asks, tool.result, tool.tells, tool.optional,
        )  # fmt: skip
    spellings = tool.names.split()
    training = draw.split == "train"
    name = spellings[0] if draw.maybe(0.1 if training else 0.4) else draw.choice(spellings)
    if training and draw.maybe(0.35):
        name = odd_name(draw, name)
    values = tuple(parameter.value(draw) for parameter in tool.parameters)
    return Declared(tool, name, tuple(names), values, draw.choice(tool.asks))


def declared(draw: Draw, invented: float = 0.4) -> Declared:
    """A tool and a request for it; `invented` is the chance of a tool nobody has seen."""

    def make() -> Declared:
        return spell(draw, generic(draw) if draw.maybe(invented) else draw.choice(TOOLS))

    # Tools without parameters have nothing but their wording to hold out.
    return draw.fresh(make, lambda d: f"tool:{d.name}:{d.values}" if d.values else f"tool:{d.name}:{d.ask}")


def another(draw: Draw, one: Declared) -> Declared:
    """Another request for a tool that is declared already."""

    def make() -> Declared:
        again = spell(draw, one.tool)
        return Declared(one.tool, one.name, one.names, again.values, again.ask)

    return draw.fresh(make, lambda d: f"tool:{d.name}:{d.values}") if one.values else make()


def alike(one: Declared, other: Declared) -> bool:
    """Whether a prompt with both would leave open which is meant."""
    shared = set(one.tool.names.split()) & set(other.tool.names.split())
    return one.tool.description == other.tool.description or one.name == other.name or bool(shared)


def about_weather(one: Declared) -> bool:
    return "weather" in one.tool.description


def beside(draw: Draw, wanted: list[Declared], most: int) -> tuple[dict[str, Any], ...]:
    """The declarations of `wanted` among up to `most` others, in any order."""
    others: list[Declared] = []
    for _ in range(draw.choice([0, 1, most])):
        other = declared(draw)
        # Two weather tools in one prompt would make the right one a matter of taste.
        related = about_weather(other) and any(about_weather(d) for d in wanted)
        if not (related or any(alike(other, d) for d in wanted + others)):
            others.append(other)
    tools = [d.declaration for d in wanted + others]
    draw.shuffle(tools)
    return tuple(tools)


def called(wanted: list[Declared], thought: str = "") -> dict[str, Any]:
    message = {"role": "assistant", "content": "", "tool_calls": [d.call for d in wanted]}
    if thought:
        message["reasoning_content"] = thought
    return message


def tool_call(draw: Draw) -> Example:
    one = declared(draw)
    thought = f"The tool {one.name} can do this."
    messages = ({"role": "user", "content": one.request}, called([one], thought))
    return Example("tool call", messages, beside(draw, [one], 2), check="tool_calls")


def parallel_calls(draw: Draw) -> Example:
    """One question about two values: two calls of one function."""
    first = draw.fresh(lambda: spell(draw, draw.choice(TOOLS[:3])), lambda d: f"tool:{d.name}:{d.values}")
    again = spell(draw, first.tool)
    second = Declared(first.tool, first.name, first.names, again.values, first.ask)
    said = {"p0": f"{first.values[0]} and {second.values[0]}", "p1": first.values[-1]}
    if len(first.values) > 1:
        second = Declared(first.tool, first.name, first.names, (again.values[0], first.values[1]), first.ask)
    messages = ({"role": "user", "content": first.ask.format(**said)}, called([first, second]))
    return Example("tool call", messages, beside(draw, [first], 1), check="tool_calls")


def returned(draw: Draw, one: Declared) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the function returned, and what the model says then."""
    result = one.tool.result(draw, list(one.values))
    shown = {k: ", ".join(v) if isinstance(v, list) else v for k, v in result.items()}
    answer = one.filled(one.tool.tells, shown)
    return {"role": "tool", "content": json.dumps(result)}, {"role": "assistant", "content": answer}


def tool_session(draw: Draw) -> Example:
    """Requests to two tools by turns, so that the name to copy is another one each time. For training only."""
    offered: list[Declared] = []
    while len(offered) < 2:
        one = declared(draw)
        if not any(alike(one, d) or (about_weather(one) and about_weather(d)) for d in offered):
            offered.append(one)
    messages: tuple[dict[str, Any], ...] = ()
    for one in offered:
        messages += ({"role": "user", "content": one.request}, called([one]), *returned(draw, one))
    last = another(draw, draw.choice(offered))
    messages += ({"role": "user", "content": last.request}, called([last], f"The tool {last.name} can do this."))
    return Example("tool session", messages, beside(draw, offered, 0), check="tool_calls")


def tool_answer(draw: Draw) -> Example:
    """The turn after the call."""
    one = declared(draw)
    asked = ({"role": "user", "content": one.request}, called([one]))
    if draw.maybe(0.1):
        reason = draw.choice(["not found", "timeout", "no access", "offline", "unknown " + w.made_up(draw)])
        result = {"role": "tool", "content": json.dumps({"error": reason})}
        answer = {"role": "assistant", "content": f"The tool failed: {reason}."}
    else:
        result, answer = returned(draw, one)
    messages = (*asked, result, answer)
    if draw.maybe(0.3):
        follow = another(draw, one)
        messages += ({"role": "user", "content": follow.request}, called([follow]))
        return Example("tool call", messages, beside(draw, [one], 1), check="tool_calls")
    return Example("tool answer", messages, beside(draw, [one], 1))


def no_tool_fits(draw: Draw) -> Example:
    """Tools are declared and none of them is the one to call.

    Training asks more often for what an unseen tool would do: those contrasts are the hard ones.
    """
    asked, offered = declared(draw, 0.4 if draw.split == "train" else 0.15), declared(draw)
    while asked.tool.names == offered.tool.names or (about_weather(asked) and about_weather(offered)):
        offered = declared(draw)
    tools = tuple(t for t in beside(draw, [offered], 1) if t["function"]["description"] != asked.tool.description)
    names = {t["function"]["name"] for t in tools}
    arithmetic_tools = {"Add two numbers", "Multiply two numbers"}
    if (
        asked.tool.description in arithmetic_tools
        or asked.tool.description == "Get the current date"
        or names & set(asked.tool.names.split())
    ):
        a, b = arithmetic.pair(draw, "-")
        return Example("no tool fits", turn(f"What is {a} - {b}?", arithmetic.equation(a, "-", b)), tools)
    return Example("no tool fits", turn(asked.request, NO_TOOL, "None of my tools can do this."), tools)
