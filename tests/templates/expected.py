"""Writes cases.json: what transformers renders for the templates of this folder.

Run in the development environment: python tests/templates/expected.py
The templates are our own, in the style of the known families: chatml (Qwen 3), headers (Llama 3),
inst (Mistral), turns (Gemma 3), channels (gpt-oss), and python (everything templates borrow).
"""

import json
from pathlib import Path

from transformers import AutoTokenizer

HERE = Path(__file__).parent
TOKENIZER = HERE.parent / "tokenizers" / "byte-level"

SYSTEM = {"role": "system", "content": " You are terse.\n"}
USER = {"role": "user", "content": "Hi, what's 2 < 3 & \"é\"?"}
ANSWER = {"role": "assistant", "content": "  True.\n"}
AGAIN = {"role": "user", "content": "And 日本?\n"}

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather at a place <now> & \"later\"",
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
CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}

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

PYTHON = {
    "messages": [{"role": "user", "content": " Hello world, hello "}, {"role": "assistant", "content": "b", "name": "n"}],
    "add_generation_prompt": False,
    "kwargs": {"extra": {"b": [1, 2.5, "é"], "a": {"x": None, "y": True}, "C": "\u007f\u2028"}},
}


def main() -> None:
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    cases = []

    def add(template: str, name: str, case: dict) -> None:
        tokenizer.chat_template = (HERE / f"{template}.jinja").read_text()
        case = {"template": template, "name": name, **case}
        try:
            case["expected"] = tokenizer.apply_chat_template(
                case["messages"],
                tools=case.get("tools"),
                add_generation_prompt=case["add_generation_prompt"],
                tokenize=False,
                **case.get("kwargs", {}),
            )
        except Exception as error:  # noqa: BLE001 - what a template raises is part of the case
            case["error"] = str(error)
        cases.append(case)

    for template in ("chatml", "headers", "inst", "turns", "channels"):
        for name, messages in CONVERSATIONS.items():
            for index, variant in enumerate(VARIANTS):
                add(template, f"{name}/{index}", {"messages": messages, **variant})
    add("python", "methods", PYTHON)
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    (HERE / "cases.json").write_text(f"[\n{lines}\n]\n")
    failed = sum("error" in case for case in cases)
    print(f"{len(cases)} cases, {failed} of them errors")


if __name__ == "__main__":
    main()
