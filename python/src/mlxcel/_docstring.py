"""What a docstring says of a function and its arguments: Google's, NumPy's and Sphinx's styles. Pure."""

from __future__ import annotations

import inspect
import re
from typing import NamedTuple

__all__ = ["Described", "described"]

_ARGUMENTS = ("args", "arguments", "parameters", "params")
_SECTIONS = frozenset(
    {*_ARGUMENTS, "returns", "return", "yields", "yield", "raises", "examples", "example", "notes", "note"}
    | {"see also", "warnings", "warning", "references", "attributes", "other parameters", "keyword args"}
)
_GOOGLE = re.compile(r"\*{0,2}(?P<name>\w+)\s*(\([^)]*\))?\s*:\s*(?P<text>.*)")
_NUMPY = re.compile(r"\*{0,2}(?P<names>\w+(\s*,\s*\w+)*)\s*(:.*)?$")
_SPHINX = re.compile(r":(?P<kind>\w+)(\s+(?P<what>[^:]*))?:\s*(?P<text>.*)")


class Described(NamedTuple):
    """The docstring's text before its first section, and what it says of each argument."""

    summary: str
    arguments: dict[str, str]


def described(docstring: str | None) -> Described:
    """Read a docstring; empty for None."""
    lines = inspect.cleandoc(docstring or "").splitlines()
    begin = next((at for at in range(len(lines)) if _starts_section(lines, at)), len(lines))
    summary = "\n".join(lines[:begin]).strip()
    arguments: dict[str, str] = {}
    at = begin
    while at < len(lines):
        end = next((to for to in range(at + 1, len(lines)) if _starts_section(lines, to)), len(lines))
        head, body = lines[at].strip(), lines[at + 1 : end]
        if head.startswith(":"):
            arguments.update(_sphinx(head, body))
        elif head.rstrip(":").lower() in _ARGUMENTS:
            underlined = bool(body) and _is_underline(body[0])
            arguments.update(_numpy(body[1:]) if underlined else _google(body))
        at = end
    return Described(summary, arguments)


def _starts_section(lines: list[str], at: int) -> bool:
    line = lines[at]
    if line[:1].isspace():
        return False
    if _SPHINX.match(line):
        return True
    name = line.strip().lower()
    if name.endswith(":"):
        return name[:-1] in _SECTIONS
    return name in _SECTIONS and at + 1 < len(lines) and _is_underline(lines[at + 1])


def _is_underline(line: str) -> bool:
    return bool(re.fullmatch(r"\s*(-{3,}|={3,})\s*", line))


def _sphinx(head: str, body: list[str]) -> dict[str, str]:
    field = _SPHINX.match(head)
    if field is None or field["kind"] not in ("param", "parameter", "arg", "argument") or not field["what"]:
        return {}
    return {field["what"].split()[-1].lstrip("*"): _joined([field["text"], *body])}


def _google(body: list[str]) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    indent, current = _indent(body), ""
    for line in body:
        entry = _GOOGLE.match(line.strip())
        if entry and len(line) - len(line.lstrip()) == indent:
            current = entry["name"]
            found[current] = [entry["text"]]
        elif current:
            found[current].append(line)
    return {name: _joined(text) for name, text in found.items()}


def _numpy(body: list[str]) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    indent, current = _indent(body), [""]
    for line in body:
        entry = _NUMPY.match(line.strip())
        if entry and len(line) - len(line.lstrip()) == indent:
            current = [name.strip() for name in entry["names"].split(",")]
            found.update({name: [] for name in current})
        else:
            for name in current:
                found.setdefault(name, []).append(line)
    return {name: _joined(text) for name, text in found.items() if name}


def _indent(body: list[str]) -> int:
    return min((len(line) - len(line.lstrip()) for line in body if line.strip()), default=0)


def _joined(lines: list[str]) -> str:
    return " ".join(line.strip() for line in lines if line.strip())
