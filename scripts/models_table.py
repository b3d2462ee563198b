"""Writes the tables of docs/models.md: the architectures of the registry, which of their checkpoints are
compared with mlx-lm, and what bench/architectures.py measured of them.

    models_table.py            writes it
    models_table.py --check    fails where the file is not what would be written
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REGISTRY = ROOT / "src" / "models" / "registry.rs"
NESTED = ROOT / "src" / "models" / "text_config.rs"
PARITY = ROOT / "python" / "tests" / "parity"
MEASURED = ROOT / "bench" / "results" / "architectures.json"
PAGE = ROOT / "docs" / "models.md"
BEGIN, END = "<!-- table: scripts/models_table.py -->", "<!-- end of table -->"
BEGIN_MEASURED = "<!-- table: bench/results/architectures.json -->"


def registered() -> dict[str, Path]:
    """The file of every architecture, by `model_type`."""
    text = REGISTRY.read_text()
    table = text[text.index("const ARCHITECTURES") : text.index("];")]
    entries = re.findall(r'(#\[cfg\(test\)\]\s*)?\(\s*"(\w+)",\s*load_as::<(\w+)>', table)
    modules = {
        name: module
        for module, names in re.findall(r"use super::(\w+)::\{?([\w, ]+)\}?;", text)
        for name in names.split(", ")
    }
    return {kind: module_file(modules[name]) for for_tests, kind, name in entries if not for_tests}


def module_file(module: str) -> Path:
    file = REGISTRY.with_name(f"{module}.rs")
    return file if file.exists() else REGISTRY.with_name(module) / "mod.rs"


def others() -> dict[str, str]:
    """What every `model_type` is that has no file of its own."""
    text = REGISTRY.read_text()
    remapped = text[text.index("const REMAPPED") :]
    found = dict(re.findall(r'\("(\w+)",\s*"(\w+)"\)', remapped[: remapped.index("];")]))
    nested = NESTED.read_text()
    pairs = re.findall(r'nested\(\s*"([\w-]+)",\s*Text::(\w+)\("(\w+)"\)', nested)
    pairs += re.findall(r'model_type: "([\w-]+)",\s*text: Text::(\w+)\("(\w+)"\)', nested)
    for outer, how, text in pairs:
        if outer != text:
            found[outer] = f"`{text}`" + " or what `text_config` says" * (how == "Stated")
    return found


def title(file: Path) -> str:
    """The first sentence of a file's documentation."""
    lines = [line[3:].strip() for line in file.read_text().splitlines() if line.startswith("//!")]
    sentence = " ".join(lines).split(". ")[0]
    return sentence.split(":")[0].split(", and what")[0]


def compared(kind: str) -> list[str]:
    """The kinds of checkpoints of an architecture that the parity tests compare."""
    sys.path.insert(0, str(PARITY))
    from families import recipes

    return [name.split("-", 1)[1] for name in recipes("ALL") if name.split("-", 1)[0] == kind]


def measured() -> list[str]:
    """The rows of what was measured: ours, mlx-lm's, and the ratio."""

    def cells(figures: dict[str, list[float]]) -> list[str]:
        (ours, theirs), (fast, slow) = figures["operations"], figures["tok/s"]
        return [f"{ours} / {theirs}", f"{fast:,.0f} / {slow:,.0f} = {fast / slow:.1f}"]

    rows = [
        "| `model_type` | float32: operations | tok/s | 4-bit: operations | tok/s |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for kind, figures in json.loads(MEASURED.read_text()).items():
        both = [cell for which in ("float32", "4-bit") for cell in cells(figures[which])]
        rows.append(f"| `{kind}` | {' | '.join(both)} |")
    return rows


def table() -> str:
    rows = ["| `model_type` | architecture | compared with mlx-lm |", "| --- | --- | --- |"]
    for kind, file in sorted(registered().items()):
        checked = ", ".join(compared(kind)) or "not yet"
        rows.append(f"| `{kind}` | {title(file)} | {checked} |")
    aliases = others()
    rows += ["", "| `model_type` | is read as | compared with mlx-lm |", "| --- | --- | --- |"]
    for kind, target in sorted(aliases.items()):
        read_as = target if "`" in target else f"`{target}`"
        rows.append(f"| `{kind}` | {read_as} | {', '.join(compared(kind))} |")
    return "\n".join(rows)


def page(text: str) -> str:
    for begin, made in ((BEGIN, table()), (BEGIN_MEASURED, "\n".join(measured()))):
        before, rest = text.split(begin)
        _, after = rest.split(END, 1)
        text = f"{before}{begin}\n\n{made}\n\n{END}{after}"
    return text


def main() -> int:
    old = PAGE.read_text()
    new = page(old)
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(new)
        return 0
    if old != new:
        sys.stderr.write("docs/models.md is out of date: run scripts/models_table.py\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
