"""Runs a notebook from beginning to end and prints what its cells show; an error in one is this one's."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import nbclient
import nbformat

read: Any = nbformat.read  # it has no types
notebook = read(sys.argv[1], as_version=4)
nbformat.validate(notebook)
folder = str(Path(sys.argv[1]).parent)
nbclient.NotebookClient(notebook, timeout=100, resources={"metadata": {"path": folder}}).execute()
for cell in notebook.cells:
    for output in cell.get("outputs", ()):
        shown = output.get("text") or "\n".join(output.get("data", {}).values())
        print(output.get("name", ""), shown)
