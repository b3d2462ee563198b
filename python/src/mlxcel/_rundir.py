"""The folder in which this user's processes find each other's servers.

All processes of a user must come to the same folder, so TMPDIR, which differs
between them, has no say. A folder that somebody else could have written to is
never used: what lies in it says whom to send a key to and whom to signal.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from ._socket_path import PORTABLE_LIMIT
from .errors import MlxcelConfigError

__all__ = ["check_trusted", "run_folder", "subfolder"]

_LONGEST_NAME = len("/shared/0123456789abcdef.sock")
_DARWIN_USER_TEMP_DIR = 65537  # confstr's name for it, which Python's os.confstr_names lacks


def run_folder() -> Path:
    """Where the user's run folder is or would be; whether it is there and trusted is `subfolder`'s to say."""
    if sys.platform == "win32":
        raise MlxcelConfigError("servers are not recorded or shared on Windows: there is no run folder")
    for folder in _candidates():
        if len(os.fsencode(folder)) + _LONGEST_NAME <= PORTABLE_LIMIT:
            return folder
    raise MlxcelConfigError("no folder for shared servers has a path short enough for a Unix socket in it")


def subfolder(name: str) -> Path:
    """A folder of this user's alone (0700) in the run folder, made if it is not there.

    Raises MlxcelConfigError when what is there belongs to somebody else or is open to others.
    """
    run = run_folder()
    for folder in (run, run / name):
        _make(folder)
        check_trusted(folder)
    return run / name


def check_trusted(folder: Path) -> None:
    """Raise unless it is a real folder of this user that nobody else may enter."""
    status = folder.lstat()
    problem = None
    if not stat.S_ISDIR(status.st_mode):
        problem = "is not a folder"
    elif status.st_uid != os.getuid():
        problem = f"belongs to user {status.st_uid}, not to you ({os.getuid()})"
    elif stat.S_IMODE(status.st_mode) & (stat.S_IRWXG | stat.S_IRWXO):
        problem = f"has mode {stat.S_IMODE(status.st_mode):04o}, so that others may enter it"
    if problem is not None:
        raise MlxcelConfigError(
            f"{folder} {problem}; it holds the keys of shared servers, so it is not used as it is: "
            "look at what is in it, then remove it (it is made anew)"
        )


def _candidates() -> list[Path]:
    if sys.platform == "darwin":
        places = [_darwin_temporary()]
    else:
        places = [os.environ.get("XDG_RUNTIME_DIR"), f"/run/user/{os.getuid()}"]
    found = [Path(place) / "mlxcel" for place in places if place and _is_ours_alone(Path(place))]
    return [*found, Path("/tmp") / f"mlxcel-{os.getuid()}"]  # noqa: S108 - checked before use


def _make(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        return
    except OSError as error:
        raise MlxcelConfigError(f"cannot make the folder {folder}: {error.strerror}") from error


def _is_ours_alone(folder: Path) -> bool:
    try:
        check_trusted(folder)
    except (OSError, MlxcelConfigError):
        return False
    return True


def _darwin_temporary() -> str | None:
    try:
        return os.confstr(_DARWIN_USER_TEMP_DIR)
    except (ValueError, OSError):
        return None
