"""The table of docs/models.md is what its script writes."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[3] / "scripts" / "models_table.py"


def test_the_table_of_models_is_current() -> None:
    ran = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
