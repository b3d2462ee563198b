"""Starts a shared server so that it outlives whoever starts it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from . import _identity, _records
from ._command import child_environment, listen_on_socket, serve_command
from ._share_place import ShareRecord
from .errors import MlxcelServerError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

    from ._command import ServeOptions
    from ._share_place import Place
    from ._share_spec import ShareSpec

__all__ = ["launch"]

_LOG_BYTES = 4 << 20
_ANSWER_SECONDS = 60.0


def launch(
    place: Place,
    lock: int,
    *,
    spec: ShareSpec,
    binary: Path,
    options: ServeOptions,
    idle_timeout: float,
    key: str,
) -> ShareRecord:
    """Start the server, detached, and write down that it runs. The lock must be held; its keeper gets it too.

    Should this process be killed on the way, the keeper ends the server before the lock is free.
    """
    place.tidy_folder()
    command = serve_command(binary, spec.model, listen_on_socket(place.socket), options)
    command += ["--exit-when-idle", f"{idle_timeout:g}"]
    with _keeper(lock, child_environment(os.environ, key)) as keeper:
        answer = _ask(keeper, _config(place, lock, command))
        pid = answer.get("pid")
        if not isinstance(pid, int):
            raise MlxcelServerError(f"the shared server could not be started ({binary}): {answer['error']}")
        # It may have failed already: then no process has this token, and the keeper tells why.
        started = _identity.start_token(pid) or "ended"
        record = ShareRecord(pid=pid, started=started, spec=spec.text)
        place.write(record)
        _records.write(
            _records.Record.of(
                pid, address=f"unix:{place.socket}", model=spec.model, binary=binary, shared=True
            )
        )
        _send(keeper, "ok")
    return record


def _config(place: Place, lock: int, command: list[str]) -> dict[str, Any]:
    return {
        "command": command,
        "lock_fd": lock,
        "lock": str(place.lock_file),
        "record": str(place.record_file),
        "socket": str(place.socket),
        "log": str(place.log),
        "exit": str(place.exit_file("{pid}")),
        "notes": str(_records.path_of("{pid}")),
        "log_bytes": _LOG_BYTES,
    }


@contextlib.contextmanager
def _keeper(lock: int, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    if not sys.executable:
        raise MlxcelServerError(
            "a shared server needs a Python interpreter to keep it, and sys.executable names none: "
            "leave share=True out"
        )
    keeper = subprocess.Popen(
        [sys.executable, "-I", "-S", str(Path(__file__).with_name("_keeper.py"))],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=[lock],
        start_new_session=True,  # a Ctrl-C at the terminal is not for it
        bufsize=0,
    )
    with keeper:  # waits for the first half of the keeper, which ends as soon as it has forked
        yield keeper


def _ask(keeper: subprocess.Popen[bytes], config: dict[str, Any]) -> dict[str, Any]:
    """What the keeper answers: a `pid`, or an `error`."""
    with contextlib.suppress(BrokenPipeError):  # then it is gone, and its stderr says why
        _send(keeper, json.dumps(config))
    output = cast("IO[bytes]", keeper.stdout)
    if not select.select([output], [], [], _ANSWER_SECONDS)[0]:
        return {"error": f"its keeper did not answer within {_ANSWER_SECONDS:g} s"}
    try:
        answer = json.loads(output.readline())
    except ValueError:
        said = cast("IO[bytes]", keeper.stderr).read().decode("utf-8", errors="replace").strip()
        return {"error": said or "its keeper ended without a word"}
    return cast("dict[str, Any]", answer)


def _send(keeper: subprocess.Popen[bytes], line: str) -> None:
    cast("IO[bytes]", keeper.stdin).write(f"{line}\n".encode())
