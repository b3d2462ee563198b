"""Variables that change what a server or a client does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ._check import Check, ok, warn

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["check_environment"]

_LIBRARY_PATHS = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH")
_PRELOADS = ("LD_PRELOAD", "DYLD_INSERT_LIBRARIES")
_NOTED = (
    "MLXCEL_BIN",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "HF_ENDPOINT",
    "XDG_RUNTIME_DIR",
    "TMPDIR",
)


def check_environment(environment: Mapping[str, str]) -> Check:
    """Values are shown only of variables that hold paths; a key may be in any other."""
    details = {name: environment[name] for name in _NOTED if environment.get(name)}
    troubles: list[tuple[str, str]] = []
    for name in _LIBRARY_PATHS:
        troubles += [
            (f"{name} leads to another libmlx, in {folder}", f"unset {name}")
            for folder in environment.get(name, "").split(":")
            if folder and any(Path(folder).glob("libmlx.*"))
        ]
    troubles += [
        (f"{name} puts other code into the server", f"unset {name} if it is not meant")
        for name in _PRELOADS
        if environment.get(name)
    ]
    flags = sorted(name for name in environment if name.startswith("LLAMA_ARG_"))
    if flags:
        troubles.append(
            (
                f"{', '.join(flags)} configure servers that you start by hand; LLM() passes them over",
                "give LLM() the same as arguments if they are meant for it",
            )
        )
    if environment.get("MLXCEL_API_KEY"):
        details["MLXCEL_API_KEY"] = "(set)"
    if troubles:
        return warn(
            "environment",
            "\n".join(what for what, _ in troubles),
            "\n".join(advice for _, advice in troubles),
            **details,
        )
    noted = ", ".join(details)
    return ok("environment", f"nothing conflicts{f' (set: {noted})' if noted else ''}", **details)
