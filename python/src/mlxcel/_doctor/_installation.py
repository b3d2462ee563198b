"""The server binary and the libmlx it runs on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import metadata
from typing import TYPE_CHECKING

from .._binary import find_binary, knows
from ..errors import MlxcelBinaryNotFoundError
from ._check import Check, fail, ok, skip, warn

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["check_binary", "check_libmlx", "libmlx_in", "read_version", "run_problem"]

_RUN_SECONDS = 30.0
_VERSION = re.compile(r"mlxcel (\S+)(?: \(MLX ([^)\s]+)\))?")
_CAN = {"lifeline": b"MLXCEL_LIFELINE", "sharing": b"exit-when-idle"}


def check_binary(binary: str | None) -> tuple[Check, Path | None, str | None]:
    """The check, the binary if it runs, and the version of the libmlx that it loaded."""
    try:
        path = find_binary(binary)
    except MlxcelBinaryNotFoundError as error:
        places = "\n".join(f"looked at {place}" for place in error.searched)
        advice = (
            "reinstall with `pip install --force-reinstall mlxcel` (its wheel carries the server),\n"
            "or build it with `cargo build --release`, and name it with --binary or MLXCEL_BIN"
        )
        summary = f"no server binary found\n{places}"
        return fail("binary", summary, advice, searched=list(error.searched)), None, None
    code, output = _run([str(path), "--version"])
    version, mlx = read_version(output)
    details = {"path": str(path), "version": version, "mlx": mlx, "size": path.stat().st_size}
    if code != 0:
        what, advice = run_problem(code, output)
        return fail("binary", f"{path} does not run: {what}", advice, output=output, **details), None, None
    if version is None:
        summary = f"{path} runs, but does not say its version: {output[:100]!r}"
        return warn("binary", summary, "is it the mlxcel server?", **details), path, None
    details |= {name: knows(path, literal) for name, literal in _CAN.items()}
    older = [name for name in _CAN if not details[name]]
    summary = f"mlxcel {version} at {path}"
    if older:
        advice = "it works all the same; `share=True` needs a newer one"
        return (
            warn("binary", f"{summary}, an older one without: {', '.join(older)}", advice, **details),
            path,
            mlx,
        )
    return ok("binary", summary, **details), path, mlx


def check_libmlx(binary: Path | None, loaded: str | None) -> Check:
    """Which libmlx the binary runs on, and whether it is the one it was built for."""
    wanted = _pinned()
    installed = _installed()
    details = {"installed": installed, "wanted": wanted, "loaded": loaded}
    if binary is None:
        if installed is None:
            return fail(
                "libmlx", "the mlx package is not installed", f"pip install 'mlx=={wanted}'", **details
            )
        return skip("libmlx", f"mlx {installed} is installed; whether the server finds it shows when it runs")
    path = _loaded_from(binary)
    details["path"] = path
    if loaded is None:
        return warn("libmlx", "the server does not say which libmlx it runs on", "update it", **details)
    summary = f"libmlx {loaded}{f' at {path}' if path else ''}"
    if wanted is not None and loaded != wanted:
        advice = f"pip install 'mlx=={wanted}' (the server was built for that version, and for no other)"
        return fail("libmlx", f"{summary}, but the server was built for {wanted}", advice, **details)
    return ok("libmlx", summary, **details)


def read_version(output: str) -> tuple[str | None, str | None]:
    """The server's and libmlx's version, from `mlxcel --version`."""
    match = _VERSION.search(output)
    return (match[1], match[2]) if match else (None, None)


def run_problem(code: int | None, output: str) -> tuple[str, str]:
    """What kept the binary from running, and what to do."""
    line = output.strip().splitlines()[-1] if output.strip() else f"it ended with status {code}"
    if "libmlx" in output:
        return (
            f"libmlx cannot be loaded ({line})",
            f"pip install --force-reinstall 'mlx=={_pinned()}' into the environment that mlxcel is in",
        )
    if "error while loading shared libraries" in output or "Library not loaded" in output:
        return f"a library cannot be loaded ({line})", "reinstall mlx and mlxcel in the same environment"
    if "GLIBC" in output:
        return f"this system is older than the binary ({line})", "build it here: `cargo build --release`"
    if "Exec format error" in output or "Bad CPU type" in output:
        return "it was made for another kind of machine", "install the wheel for this platform"
    if code is None:
        return line, "is the disk or the machine very slow? try it by hand: `mlxcel --version`"
    return line, "run it by hand to see more: `mlxcel --version`"


def libmlx_in(listing: str) -> str | None:
    """The path of libmlx in what the dynamic linker lists (`ldd`, or DYLD_PRINT_LIBRARIES)."""
    for line in listing.splitlines():
        match = re.search(r"libmlx\.\w+ => (/\S+)", line) or re.search(r"(/\S*/libmlx\.dylib)", line)
        if match:
            return os.path.normpath(match[1])
    return None


def _loaded_from(binary: Path) -> str | None:
    if sys.platform == "linux":
        return libmlx_in(_run([str(binary)], {"LD_TRACE_LOADED_OBJECTS": "1"})[1])
    return libmlx_in(_run([str(binary), "--version"], {"DYLD_PRINT_LIBRARIES": "1"})[1])


def _run(command: list[str], environment: Mapping[str, str] | None = None) -> tuple[int | None, str]:
    """Exit status (None for one that never came) and output."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_RUN_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(environment or {})},
        )
    except subprocess.TimeoutExpired:
        return None, f"it did not answer within {_RUN_SECONDS:g} s"
    except OSError as error:
        return None, str(error)
    return done.returncode, done.stdout + done.stderr


def _installed() -> str | None:
    try:
        return metadata.version("mlx")
    except metadata.PackageNotFoundError:
        return None


def _pinned() -> str | None:
    """The version of mlx that this package asks for: the one its binary is built with."""
    for line in metadata.requires("mlxcel") or []:
        match = re.match(r"mlx(?:\[\w+\])?\s*==\s*([0-9.]+)", line)
        if match:
            return match[1]
    return None
