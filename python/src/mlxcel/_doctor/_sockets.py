"""Where Unix sockets go, and whether they work there."""

from __future__ import annotations

import os
import socket
import stat
import sys
from pathlib import Path
from typing import Any

from .. import _rundir
from .._socket_path import PATH_LIMIT, private_directory, socket_in
from ..errors import MlxcelConfigError
from ._check import Check, fail, ok, warn

__all__ = ["check_folders", "check_socket"]


def check_folders() -> list[Check]:
    """A private server's folder, tried out; the folder of records and shared servers, looked at."""
    if sys.platform == "win32":
        return [ok("sockets", "servers listen on TCP on Windows")]
    return [_check_private(), _check_run_folder()]


def _check_private() -> Check:
    try:
        folder = private_directory()
    except MlxcelConfigError as error:
        advice = (
            "set TMPDIR to a folder with a short path that you may write to, or use LLM(…, host='127.0.0.1')"
        )
        return fail("sockets", str(error), advice)
    path = socket_in(folder)
    mode = stat.S_IMODE(folder.stat().st_mode)
    details = {"folder": str(folder.parent), "path_bytes": len(os.fsencode(path)), "limit": PATH_LIMIT}
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    except OSError as error:
        advice = "some network and shared folders cannot hold sockets: set TMPDIR to a local folder"
        return fail(
            "sockets", f"no socket can be made in {folder.parent}: {error.strerror}", advice, **details
        )
    finally:
        path.unlink(missing_ok=True)
        folder.rmdir()
    if mode & 0o077:
        advice = "set TMPDIR to a folder on a local file system"
        summary = f"{folder.parent} does not keep folders private (mode {mode:04o})"
        return fail("sockets", summary, advice, **details)
    summary = f"sockets work in {folder.parent} (path of {details['path_bytes']} bytes, {PATH_LIMIT} allowed)"
    return ok("sockets", summary, **details)


def _check_run_folder() -> Check:
    try:
        folder = _rundir.run_folder()
        for part in (folder, folder / "shared", folder / "servers"):
            if os.path.lexists(part):
                _rundir.check_trusted(part)
    except MlxcelConfigError as error:
        return warn(
            "run folder",
            str(error),
            "until then `ps` and `stop` see no servers of yours, and share=True fails",
        )
    state = "is private" if folder.exists() else "will be made when it is needed"
    return ok("run folder", f"{folder} {state}", folder=str(folder))


def check_socket(path: str) -> Check:
    """A socket that somebody says a server listens on."""
    where = Path(path).expanduser().absolute()
    length = len(os.fsencode(where))
    details: dict[str, Any] = {"path": str(where), "path_bytes": length, "limit": PATH_LIMIT}
    if length > PATH_LIMIT:
        summary = f"{where} has {length} bytes, and this system allows {PATH_LIMIT}"
        return fail("socket", summary, "use a shorter path, for example under /tmp", **details)
    try:
        status = where.lstat()
        if stat.S_ISLNK(status.st_mode):
            status = where.stat()
    except FileNotFoundError:
        advice = "is the server running, and with this path as --host? `python -m mlxcel ps` lists yours"
        return fail("socket", f"there is nothing at {where}", advice, **details)
    except OSError as error:
        return fail(
            "socket",
            f"{where} cannot be reached: {error.strerror}",
            "check the folders on the way",
            **details,
        )
    if not stat.S_ISSOCK(status.st_mode):
        return fail(
            "socket", f"{where} is not a socket", "name the path that the server got as --host", **details
        )
    details |= {"mode": f"{stat.S_IMODE(status.st_mode):04o}", "owner": status.st_uid}
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(5)
        try:
            probe.connect(str(where))
        except ConnectionRefusedError:
            advice = "the server that made it is gone: start it again (it replaces a dead socket)"
            return fail("socket", f"nobody listens at {where}", advice, **details)
        except PermissionError:
            advice = f"the socket belongs to user {status.st_uid} (mode {details['mode']}): run as that user"
            return fail("socket", f"you may not connect to {where}", advice, **details)
        except OSError as error:
            return fail(
                "socket",
                f"{where} does not answer: {error}",
                "is the server overloaded or stopped?",
                **details,
            )
    return ok("socket", f"somebody listens at {where}", **details)
