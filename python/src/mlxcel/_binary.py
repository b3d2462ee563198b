"""Finds the `mlxcel` server binary, says where it looked when there is none, and what it knows."""

from __future__ import annotations

import functools
import os
import shutil
import sys
from pathlib import Path

from .errors import MlxcelBinaryNotFoundError

__all__ = ["find_binary", "knows"]

_NAME = "mlxcel.exe" if sys.platform == "win32" else "mlxcel"
_CHUNK = 1 << 20


def find_binary(binary: str | os.PathLike[str] | None = None) -> Path:
    """The server binary: `binary`, else MLXCEL_BIN, else the one in this package, else PATH.

    On PATH only what is the server by its contents counts, not a script or
    another program that has its name.

    A place that was named (`binary`, MLXCEL_BIN) and holds no executable is an
    error: falling back to another binary would run what nobody asked for.
    """
    if binary is not None:
        return _named(os.fspath(binary), "binary=")
    from_environment = os.environ.get("MLXCEL_BIN")
    if from_environment:
        return _named(from_environment, "MLXCEL_BIN")

    searched = ["binary= (not given)", "MLXCEL_BIN (not set)"]
    bundled = Path(__file__).parent / "_bin" / _NAME
    problem = _problem(bundled)
    if problem is None:
        return bundled
    searched.append(f"bundled in the package: {bundled} ({problem})")

    on_path, passed_over = _on_path()
    if on_path is not None:
        return on_path
    raise _not_found([*searched, *passed_over, f"PATH: {os.environ.get('PATH', '')}"])


def knows(binary: str | os.PathLike[str], literal: bytes) -> bool:
    """Whether the file has this text in it, such as the name of a variable or of a flag that it reads.

    Tells an older server from a newer one without running it. A script around
    a server counts as older. Read once for each version of the file.
    """
    status = Path(binary).stat()
    return _contains(
        os.fspath(binary), literal, (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
    )


@functools.lru_cache(maxsize=64)
def _contains(path: str, literal: bytes, _version: tuple[int, ...]) -> bool:
    # In chunks: a map's own find is several times slower, and reading it whole costs its size in memory.
    overlap = len(literal) - 1
    chunk = bytearray(overlap + _CHUNK)
    with Path(path).open("rb", buffering=0) as file:
        kept = 0
        while count := file.readinto(memoryview(chunk)[kept:]):
            end = kept + count
            if chunk.find(literal, 0, end) >= 0:
                return True
            kept = min(overlap, end)
            chunk[:kept] = chunk[end - kept : end]
    return False


def _named(value: str, source: str) -> Path:
    path = Path(value).expanduser()
    if path.name == value:  # a bare command name
        found = _on_path()[0] if value == _NAME else shutil.which(value)
        if found is not None:
            return Path(found).absolute()
    problem = _problem(path)
    if problem is not None:
        raise _not_found([f"{source} {path} ({problem})"])
    return path.absolute()


def _on_path() -> tuple[Path | None, list[str]]:
    """The first server on PATH, and what else has its name there: a script of another package, a folder."""
    passed_over: list[str] = []
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        candidate = Path(folder or ".").absolute() / _NAME
        if not os.path.lexists(candidate):
            continue
        problem = _problem(candidate) or _not_a_server(candidate)
        if problem is None:
            return candidate, passed_over
        passed_over.append(f"PATH: {candidate} ({problem})")
    return None, passed_over


def _not_a_server(path: Path) -> str | None:
    """Any version of the server reads its key from this variable, and so has its name in it."""
    try:
        return None if knows(path, b"LLAMA_API_KEY") else "another program of that name"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _problem(path: Path) -> str | None:
    if path.is_dir():
        return "a folder"
    if not path.exists():
        return "does not exist"
    if not os.access(path, os.X_OK):
        return "not executable"
    return None


def _not_found(searched: list[str]) -> MlxcelBinaryNotFoundError:
    places = "\n".join(f"  - {place}" for place in searched)
    return MlxcelBinaryNotFoundError(
        f"no mlxcel server binary; looked at:\n{places}\n"
        "Install a wheel that carries it, build it with `cargo build --release`, "
        "or name it with binary= or MLXCEL_BIN.",
        searched=searched,
    )
