"""What the README and the docs show of Python runs, where nothing is left for the reader to fill in."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[3]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
TO_FILL_IN = re.compile(r"…|\.\.\.\)|owner/name")


def blocks(page: Path, language: str) -> list[str]:
    return [code for kind, code in BLOCK.findall(page.read_text("utf-8")) if kind == language]


def complete(page: Path) -> list[str]:
    return [code for code in blocks(page, "python") if not TO_FILL_IN.search(code)]


def whole(code: str) -> bool:
    """Whether it needs nothing of the blocks before it."""
    imports = re.search(r"^(from|import) mlxcel", code, re.MULTILINE)
    return imports is not None and ("llm." not in code or "LLM(" in code)


PROGRAMS = [
    pytest.param(code, id=f"{page.relative_to(ROOT / 'docs')}-{index}")
    for page in sorted((ROOT / "docs").rglob("*.md"))
    for index, code in enumerate(complete(page))
    if whole(code)
]


def run(code: str, binary: Path, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "MLXCEL_BIN": str(binary)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_readme_from_the_top(real_binary: Path, tmp_path: Path) -> None:
    readme = ROOT / "README.md"
    shown = complete(readme)
    assert len(shown) >= 4
    written = run("\n".join(shown), real_binary, tmp_path)
    assert written.startswith(blocks(readme, "text")[0])


def test_there_are_programs() -> None:
    assert len(PROGRAMS) >= 5


@pytest.mark.parametrize("code", PROGRAMS)
def test_a_program_of_the_docs(code: str, real_binary: Path, tmp_path: Path) -> None:
    run(code, real_binary, tmp_path)
