"""Where a private server's Unix socket goes.

`sockaddr_un.sun_path` holds 104 bytes on macOS and 108 on Linux, the closing
NUL included, and macOS's own TMPDIR already takes half of that. So our own
paths are short enough for either, whatever TMPDIR is.
"""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from pathlib import Path

from .errors import MlxcelConfigError

__all__ = ["PATH_LIMIT", "PORTABLE_LIMIT", "check_socket_path", "private_directory"]

PATH_LIMIT = 107 if sys.platform == "linux" else 103
"""Longest socket path in bytes on this system, without the closing NUL."""

PORTABLE_LIMIT = 103
"""The same where it is shortest: macOS."""
_NAME = "s.sock"
_PREFIX = "mlxcel-"
_RANDOM = 8  # characters that mkdtemp appends


def check_socket_path(path: str | os.PathLike[str]) -> Path:
    """The absolute form of a path that the caller chose; an error says by how much it is too long."""
    absolute = Path(path).expanduser().absolute()
    length = len(os.fsencode(absolute))
    if length > PATH_LIMIT:
        raise MlxcelConfigError(
            f"the socket path {str(absolute)!r} has {length} bytes, and this system allows {PATH_LIMIT}; "
            "use a shorter one, for example under /tmp, or leave `socket` out"
        )
    if not absolute.parent.is_dir():
        raise MlxcelConfigError(f"the folder of the socket path {str(absolute)!r} does not exist")
    return absolute


def private_directory() -> Path:
    """A new folder that only this user may enter (0700), short enough for a socket in it.

    Tried in order: XDG_RUNTIME_DIR, the system's temporary folder (TMPDIR), /tmp.
    """
    tried = []
    for parent in _candidates():
        length = len(os.fsencode(parent)) + len(f"/{_PREFIX}{'x' * _RANDOM}/{_NAME}")
        if length > PORTABLE_LIMIT:
            tried.append(f"{parent} (a socket path of {length} bytes, over {PORTABLE_LIMIT})")
            continue
        try:
            return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        except OSError as error:
            tried.append(f"{parent} ({error.strerror})")
    raise MlxcelConfigError(
        "no folder for the server's Unix socket: " + "; ".join(tried) + "; "
        "pass `socket=` with a short path, or `host=` for TCP"
    )


def socket_in(directory: Path) -> Path:
    """The socket's path in a private folder."""
    return directory / _NAME


def _candidates() -> list[str]:
    places = []
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime and _is_ours_alone(runtime):
        places.append(runtime)
    places += [tempfile.gettempdir(), "/tmp"]  # noqa: S108 - mkdtemp makes the 0700 folder in it
    return list(dict.fromkeys(places))


def _is_ours_alone(directory: str) -> bool:
    try:
        status = Path(directory).stat()
    except OSError:
        return False
    return (
        stat.S_ISDIR(status.st_mode)
        and status.st_uid == os.getuid()
        and not stat.S_IMODE(status.st_mode) & (stat.S_IRWXG | stat.S_IRWXO)
    )
