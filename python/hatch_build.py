"""Build hook: puts the server binary and the built-in model into the wheel.

`make wheel` copies the release binary to `src/mlxcel/_bin/`; when it is there
the wheel carries it, with the model beside it, and is tagged for the platform
it was built on. Without it the wheel (and an editable install) is pure Python.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import platform_tags

BINARY = "mlxcel.exe" if sys.platform == "win32" else "mlxcel"
MODEL = "mlxcel-tiny"


class WheelContents(BuildHookInterface[Any]):
    """Decides what a wheel holds beyond the Python files."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root)
        binary = root / "src" / "mlxcel" / "_bin" / BINARY
        if version == "editable" or not binary.is_file():
            return
        if not os.access(binary, os.X_OK):
            raise RuntimeError(f"{binary} is not executable; the wheel would carry a dead binary")
        model = root.parent / "tiny-model" / MODEL
        if not (model / "config.json").is_file():
            raise RuntimeError(f"the built-in model is not at {model}; a wheel with the binary needs it")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{next(iter(platform_tags()))}"
        build_data["artifacts"].append(f"src/mlxcel/_bin/{BINARY}")
        build_data["force_include"][str(model)] = f"mlxcel/_models/{MODEL}"
