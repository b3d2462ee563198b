"""The examples run as they are, in a process of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

EXAMPLES = Path(__file__).parents[2] / "examples"
RUNNER = Path(__file__).parents[1] / "notebook.py"
EXPECTED = {
    "quickstart.py": ["mlxcel-tiny: ", "42", "finished because: stop", "'hello world'"],
    "streaming.py": ["1", "9", "(stop)", "5", "42"],
    "conversation.py": ["17 + 25 = 42", "3 + 4 = 7", "9", "3 5 5"],
    "openai_helpers.py": ["name='Anna' age=31", "9"],
    "tools.py": ['add(a=17, b=25) -> {"result":42}', "42.", "2 answers"],
    "structured_output.py": ['"name"', "Anna is 31", "name='Anna' age=None", "too short (length)"],
}
NOTEBOOKS = {
    "first_steps.ipynb": ["42", "stop Usage(", "9", "'3 + 4 = 7'", 'add(a=17, b=25) -> {"result":42}'],
    "extraction.ipynb": ["Person(name='Anna', age=31)", "['Person', 'Person', 'Person'] 3", "length '{"],
}


def test_every_example_is_tried() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(EXPECTED)
    assert {path.name for path in EXAMPLES.glob("*.ipynb")} == set(NOTEBOOKS)


@pytest.mark.parametrize("name", sorted(NOTEBOOKS))
def test_notebook(name: str, real_binary: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(RUNNER), str(EXAMPLES / name)],
        env={**os.environ, "MLXCEL_BIN": str(real_binary)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for expected in NOTEBOOKS[name]:
        assert expected in done.stdout
    assert "stderr" not in done.stdout
    written = json.loads((EXAMPLES / name).read_text())
    assert not any(cell.get("outputs") for cell in written["cells"]), "what it shows is not checked in"


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_example(name: str, real_binary: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name)],
        env={**os.environ, "MLXCEL_BIN": str(real_binary)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for expected in EXPECTED[name]:
        assert expected in done.stdout
    assert len((EXAMPLES / name).read_text().splitlines()) <= 30
