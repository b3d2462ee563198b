"""Which shared server a client wants: two of the same spec share one."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._command import ServeOptions

__all__ = ["ShareSpec", "binary_identity", "resolve_model"]

_BUILT_IN = "mlxcel-tiny"
_DIGEST = 16  # hexadecimal digits: enough for one user's servers, short enough for a socket's path
_FORMAT = 1


@dataclass(frozen=True)
class ShareSpec:
    """What must be the same for two clients to share a server.

    `binary` and `model_files` change when the file or the folder does, so that
    nobody joins a server that still runs what was there before.
    """

    model: str
    model_files: str
    binary: str
    options: tuple[tuple[str, Any], ...]
    format: int = _FORMAT

    @classmethod
    def of(cls, model: str, binary: Path, options: ServeOptions) -> ShareSpec:
        """Looks at the binary and, if the model is a folder, at its files."""
        resolved = resolve_model(model)
        chosen = {name: value for name, value in asdict(options).items() if value not in (None, ())}
        return cls(
            model=resolved,
            model_files=_folder_identity(Path(resolved)) if resolved.startswith("/") else "",
            binary=binary_identity(binary),
            options=tuple(sorted(chosen.items())),
        )

    @property
    def text(self) -> str:
        """The spec as a record holds it."""
        return json.dumps(asdict(self), sort_keys=True)

    @property
    def digest(self) -> str:
        """Names the files of the server."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:_DIGEST]


def resolve_model(model: str) -> str:
    """The model argument as it means the same in every folder, by the server's rules.

    `mlxcel-tiny` is the built-in model; a path that exists is that folder; anything else stays.
    """
    if model == _BUILT_IN:
        return model
    path = Path(model).expanduser()
    return str(path.resolve()) if os.path.exists(path) else model  # noqa: PTH110 - False where it may not look


def binary_identity(binary: Path) -> str:
    """A binary that was built or installed anew is another one."""
    real = binary.resolve()
    status = real.stat()
    return f"{real} {status.st_dev}:{status.st_ino} {status.st_size} {status.st_mtime_ns}"


def _folder_identity(folder: Path) -> str:
    if not folder.is_dir():
        return ""
    entries = []
    for entry in os.scandir(folder):
        if entry.name.endswith((".json", ".safetensors", ".jinja", ".model", ".txt")):
            try:
                status = entry.stat()
            except OSError:
                continue  # a dangling link: the server's to complain about
            entries.append(f"{entry.name} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(sorted(entries)).encode()).hexdigest()
