"""One run of the server binary: started, drained, watched, and always ended.

Nothing here knows HTTP. A `ServerProcess` belongs to the Python process that
created it: in a forked child `stop` does nothing, so that a child's exit never
takes the parent's server with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from typing import IO, TYPE_CHECKING, cast

from ._drain import Drain
from .errors import MlxcelServerError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["ServerProcess", "describe_exit"]

_LAST_WORDS = 1.0  # seconds that a dead child's pipes get to reach their end
_AFTER_KILL = 10.0  # seconds in which the kernel ends a killed process


class ServerProcess:
    """A running server child and what it leaves behind on disk.

    `cleanup` is a private folder to remove after the end. `steps` records the
    shutdown ladder as it was climbed: `"SIGTERM"`, `"SIGKILL"`, `"exited"`.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        secret: str = "",
        cleanup: Path | None = None,
    ) -> None:
        self.steps: list[str] = []
        self.owner_pid = os.getpid()
        self._cleanup = cleanup
        self._socket: tuple[Path, int, int] | None = None
        self._stop_lock = threading.Lock()
        self._listening: str | None = None
        try:
            self._popen = subprocess.Popen(
                list(command),
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                close_fds=True,
                # Ctrl-C in the terminal is the client's to handle.
                start_new_session=sys.platform != "win32",
            )
        except OSError as error:
            self._remove_files()
            raise MlxcelServerError(f"cannot start {command[0]}: {error.strerror or error}") from error
        name = f"mlxcel-server-{self._popen.pid}"
        stdout, stderr = cast("IO[bytes]", self._popen.stdout), cast("IO[bytes]", self._popen.stderr)
        try:
            self._stdout = Drain(stdout, name=f"{name}-out", secret=secret, on_line=self._note)
            self._stderr = Drain(stderr, name=f"{name}-err", secret=secret)
        except BaseException:  # no thread to be had: a child that nobody drains must not stay
            self._popen.kill()
            self._popen.wait()
            self._remove_files()
            raise

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def listening(self) -> str | None:
        """The address the server announced on stdout, once it did (an older binary never does)."""
        return self._listening

    def poll(self) -> int | None:
        """The exit status, negative for a signal, or None while it runs."""
        return self._popen.poll()

    def wait(self, timeout: float) -> int | None:
        """Like `poll`, but waits up to `timeout` seconds for the end."""
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def stderr_tail(self, *, final: bool = False) -> str:
        """The last lines of stderr; `final` first waits for what a dead child had still in its pipe."""
        if final:
            self._stderr.join(_LAST_WORDS)
        return self._stderr.tail()

    def adopt_socket(self, path: Path) -> None:
        """Remember the socket file that this child made, so that only this one is removed later."""
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            self._socket = (path, status.st_dev, status.st_ino)

    def stop(self, grace: float) -> None:
        """SIGTERM, wait up to `grace` seconds, SIGKILL, remove the files. Again, or in a fork: nothing."""
        if os.getpid() != self.owner_pid:
            return
        with self._stop_lock:
            if "exited" not in self.steps:
                self._end(grace)
                if self.poll() is not None:
                    self.steps.append("exited")
            self._remove_files()
        self._stdout.join(_LAST_WORDS)
        self._stderr.join(_LAST_WORDS)

    def _end(self, grace: float) -> None:
        if self.poll() is not None:
            return
        self.steps.append("SIGTERM")
        self._popen.terminate()
        if self.wait(grace) is not None:
            return
        # Last, because a hard kill can strand wired GPU memory.
        self.steps.append("SIGKILL")
        if sys.platform == "win32":
            self._popen.kill()
        else:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._popen.pid, signal.SIGKILL)
        self.wait(_AFTER_KILL)

    def _remove_files(self) -> None:
        if self._socket is not None:
            path, device, inode = self._socket
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                if (status.st_dev, status.st_ino) == (device, inode):
                    path.unlink()
            self._socket = None
        if self._cleanup is not None:
            shutil.rmtree(self._cleanup, ignore_errors=True)
            self._cleanup = None

    def _note(self, line: str) -> None:
        if self._listening is not None or not line.startswith("{"):
            return
        try:
            event = json.loads(line)
        except ValueError:
            return
        if event.get("event") == "listening" and isinstance(event.get("address"), str):
            self._listening = event["address"]


def describe_exit(code: int) -> str:
    """`exited with code 1`, or `was ended by SIGKILL`."""
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
