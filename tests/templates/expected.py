"""Writes cases.json and snippets.json: what transformers renders for the templates of this folder.

Run in the development environment: python tests/templates/expected.py
The templates are our own, in the style of the known families: chatml (Qwen 3), headers (Llama 3),
inst (Mistral), turns (Gemma 3), channels (gpt-oss), coder (Qwen3-Coder), deepseek, command (Command R,
Hermes), glm (GLM, Kimi, LFM), types (gpt-oss, Gemma), modes (SmolLM3, Granite, EXAONE, Nemotron), and
python (everything templates borrow).
"""

import json
from pathlib import Path

from transformers import AutoTokenizer

HERE = Path(__file__).parent
TOKENIZER = HERE.parent / "tokenizers" / "byte-level"

SYSTEM = {"role": "system", "content": " You are terse.\n"}
USER = {"role": "user", "content": 'Hi, what\'s 2 < 3 & "é"?'}
ANSWER = {"role": "assistant", "content": "  True.\n"}
AGAIN = {"role": "user", "content": "And 日本?\n"}

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": 'The weather at a place <now> & "later"',
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Größe"},
                "unit": {"enum": ["c", "f"], "default": "c"},
                "days": {"type": "array", "items": {"type": "integer"}},
                "limit": {"type": ["number", "null"], "default": 1.0},
            },
            "required": ["city"],
        },
    },
}
CLOCK = {
    "type": "function",
    "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}},
}

NESTED = {
    "type": "function",
    "function": {
        "name": "plan",
        "parameters": {
            "type": "object",
            "properties": {
                "steps": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {"b": {"type": "string"}, "a": {"type": "integer"}},
                        "required": ["a"],
                    },
                },
                "when": {"type": "string", "enum": ["now", "later"], "default": "now"},
                "any": {},
                "nullable": {"type": "boolean", "nullable": True, "description": "yes 日本 or no"},
            },
        },
        "strict": True,
        "return": {"type": "string"},
    },
}

CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {
            "id": "abcdefghi",
            "type": "function",
            "function": {"name": "get_weather", "arguments": {"city": "Zürich", "days": [1, 2], "x": 1.0}},
        }
    ],
}
CALL_TEXT = {
    "role": "assistant",
    "content": "Calling.",
    "tool_calls": [{"id": "abcdefghi", "function": {"name": "clock", "arguments": "{}"}}],
}
PARALLEL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [CALL["tool_calls"][0], CALL_TEXT["tool_calls"][0]],
}
RESULT = {"role": "tool", "tool_call_id": "abcdefghi", "name": "get_weather", "content": '{"sky": "blue"}'}
THOUGHT = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes."}
REASONED = {"role": "assistant", "content": "Yes.", "reasoning_content": "because"}
THINKING = {"role": "assistant", "content": "Yes.", "thinking": "older name"}
PARTS = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": " look "}]}

CONVERSATIONS = {
    "one": [USER],
    "system": [SYSTEM, USER],
    "turns": [SYSTEM, USER, ANSWER, AGAIN],
    "no-alternation": [USER, USER],
    "starts-with-assistant": [ANSWER, USER],
    "tools": [SYSTEM, USER, CALL, RESULT, ANSWER, AGAIN],
    "tool-round": [USER, CALL, RESULT],
    "two-results": [USER, CALL, RESULT, RESULT],
    "call-with-text": [USER, CALL_TEXT, RESULT],
    "thought": [USER, THOUGHT, AGAIN],
    "thought-last": [USER, THOUGHT],
    "reasoned": [USER, REASONED, AGAIN],
    "reasoned-last": [USER, REASONED],
    "thinking": [USER, THINKING, AGAIN],
    "parts": [SYSTEM, PARTS],
    "stop": [USER, {"role": "assistant", "content": "STOP"}, AGAIN],
    "parallel": [USER, PARALLEL, RESULT, {**RESULT, "name": "clock", "content": "12:00"}, ANSWER],
    "modes": [{**SYSTEM, "content": "Be brief. /no_think"}, USER, REASONED],
    "other-role": [{"role": "developer", "content": "x"}, USER],
    "null-fields": [{**USER, "name": None, "tool_calls": None}],
}

VARIANTS = [
    {"add_generation_prompt": True},
    {"add_generation_prompt": False},
    {"add_generation_prompt": True, "tools": [WEATHER, CLOCK]},
    {"add_generation_prompt": True, "kwargs": {"enable_thinking": False, "reasoning_effort": "high"}},
    {
        "add_generation_prompt": True,
        "tools": [CLOCK],
        "kwargs": {"date_string": "1 Jan 2026", "tools_in_user_message": False, "bos_token": "<other>"},
    },
    {"add_generation_prompt": True, "kwargs": {"builtin_tools": ["code_interpreter", "search"]}},
]

# For the templates that do not depend on what Llama 3's and gpt-oss's do.
FEWER = [
    {"add_generation_prompt": True},
    {
        "add_generation_prompt": True,
        "tools": [WEATHER, CLOCK],
        "kwargs": {"enable_thinking": False, "thinking": True, "reasoning_effort": "high"},
    },
    {
        "add_generation_prompt": False,
        "tools": [NESTED],
        "kwargs": {
            "documents": [{"title": 'A <b> & "c"', "text": "one\n\ntwo"}, {"text": "Größe"}],
            "date_string": "1 Jan 2026",
            "builtin_tools": ["search"],
        },
    },
]

PYTHON = {
    "messages": [
        {"role": "user", "content": " Hello world, hello "},
        {"role": "assistant", "content": "b", "name": "n"},
    ],
    "add_generation_prompt": False,
    "kwargs": {"extra": {"b": [1, 2.5, "é"], "a": {"x": None, "y": True}, "C": "\u007f\u2028"}},
}


# What the lines of snippets.txt, each a template of its own, are rendered with.
SNIPPETS = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello", "name": "n"},
        {"role": "user", "content": "Bye"},
    ],
    "kwargs": {"text": " Hello wörld,\nso long ", "data": {"b": {"c": [{"d": 1}]}, "a": "é'\"", "C": None}},
}


def write_snippets(tokenizer) -> None:
    snippets = []
    for source in (HERE / "snippets.txt").read_text().splitlines():
        tokenizer.chat_template = source
        snippet = {"source": source}
        try:
            snippet["expected"] = tokenizer.apply_chat_template(
                SNIPPETS["messages"], tokenize=False, **SNIPPETS["kwargs"]
            )
        except Exception as error:  # noqa: BLE001 - what a template raises is part of it
            snippet["error"] = str(error)
        snippets.append(json.dumps(snippet, ensure_ascii=True))
    fixture = {**SNIPPETS, "snippets": "LINES"}
    text = json.dumps(fixture).replace('"LINES"', "[\n{}\n]".format(",\n".join(snippets)))
    (HERE / "snippets.json").write_text(text + "\n")


def main() -> None:
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    write_snippets(tokenizer)
    conversations = CONVERSATIONS | {"methods": PYTHON["messages"]}
    variants = {f"full/{index}": variant for index, variant in enumerate(VARIANTS)}
    variants |= {f"fewer/{index}": variant for index, variant in enumerate(FEWER)}
    variants["python"] = {key: value for key, value in PYTHON.items() if key != "messages"}
    cases = []

    def add(template: str, conversation: str, variant: str) -> None:
        tokenizer.chat_template = (HERE / f"{template}.jinja").read_text()
        case = {"template": template, "conversation": conversation, "variant": variant}
        input = variants[variant]
        try:
            case["expected"] = tokenizer.apply_chat_template(
                conversations[conversation],
                tools=input.get("tools"),
                add_generation_prompt=input["add_generation_prompt"],
                tokenize=False,
                **input.get("kwargs", {}),
            )
        except Exception as error:  # noqa: BLE001 - what a template raises is part of the case
            case["error"] = str(error)
        cases.append(case)

    for prefix, templates in (
        ("full", ("chatml", "headers", "inst", "turns", "channels")),
        ("fewer", ("coder", "deepseek", "command", "glm", "types", "modes")),
    ):
        for template in templates:
            for conversation in CONVERSATIONS:
                for variant in variants:
                    if variant.startswith(prefix):
                        add(template, conversation, variant)
    add("python", "methods", "python")
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    fixture = {"conversations": conversations, "variants": variants, "cases": "LINES"}
    text = json.dumps(fixture, ensure_ascii=False).replace('"LINES"', f"[\n{lines}\n]")
    (HERE / "cases.json").write_text(text + "\n")
    failed = sum("error" in case for case in cases)
    print(f"{len(cases)} cases, {failed} of them errors")


if __name__ == "__main__":
    main()
