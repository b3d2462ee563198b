"""Where a private server's Unix socket goes.

`sockaddr_un.sun_path` holds 104 bytes on macOS and 108 on Linux, the closing
NUL included, and macOS's own TMPDIR already takes half of that. So our own
paths are short enough for either, whatever TMPDIR is.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import sys
import tempfile
import time
from pathlib import Path

from .errors import MlxcelConfigError, MlxcelServerError

__all__ = [
    "PATH_LIMIT",
    "PORTABLE_LIMIT",
    "SocketFile",
    "check_socket_path",
    "private_directory",
    "refuse_taken_path",
    "socket_in",
    "sweep",
]

PATH_LIMIT = 107 if sys.platform == "linux" else 103
"""Longest socket path in bytes on this system, without the closing NUL."""

PORTABLE_LIMIT = 103
"""The same where it is shortest: macOS."""
_NAME = "s.sock"
_PREFIX = "mlxcel-"
_RANDOM = 8  # characters that mkdtemp appends
_STALE = 86400.0  # seconds; an older server may take long to load before it makes its socket


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


def sweep(parent: Path) -> None:
    """Remove private folders of owners that were killed. A day old, ours, and nobody answers in them."""
    with contextlib.suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if not entry.name.startswith(_PREFIX) or len(entry.name) != len(_PREFIX) + _RANDOM:
                continue
            with contextlib.suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                if (
                    stat.S_ISDIR(status.st_mode)
                    and status.st_uid == os.getuid()
                    and time.time() - status.st_mtime > _STALE
                ):
                    _remove_abandoned(Path(entry.path))


def _remove_abandoned(folder: Path) -> None:
    path = socket_in(folder)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            SocketFile(path).remove()
        except FileNotFoundError:
            pass
        else:
            return
    folder.rmdir()  # which fails if there is anything else in it


def socket_in(directory: Path) -> Path:
    """The socket's path in a private folder."""
    return directory / _NAME


class SocketFile:
    """A socket file as it was when our server had made it, so that this one alone is removed later."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._identity = _identity(path)

    def remove(self) -> None:
        """Remove it, unless something else lies there by now."""
        if self._identity is not None and _identity(self._path) == self._identity:
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()


def _identity(path: Path) -> tuple[int, int, int] | None:
    """Device, inode and time of creation: an inode's number alone is soon used again."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    if not stat.S_ISSOCK(status.st_mode):
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns


def refuse_taken_path(path: Path) -> None:
    """Raise MlxcelServerError for a path at which a server cannot listen without harm to something else.

    An older server may delete whatever lies in its way. A socket that nobody
    answers on is left to the server to replace.
    """
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise MlxcelServerError(
            f"{path} exists and is not a socket: remove it yourself or choose another path"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except OSError as error:  # a full backlog, or no permission: somebody is there
            why = error.strerror or str(error)
            raise MlxcelServerError(f"another server holds {path} ({why}): choose another path") from error
    raise MlxcelServerError(
        f"another server answers at {path}: connect to it with LLM(socket={str(path)!r}), "
        "or choose another path"
    )


def _candidates() -> list[str]:
    places = []
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime and _is_ours_alone(runtime):
        places.append(runtime)
    with contextlib.suppress(FileNotFoundError):  # no folder of all that Python knows can be written to
        places.append(tempfile.gettempdir())
    places.append("/tmp")  # noqa: S108 - mkdtemp makes the 0700 folder in it
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
