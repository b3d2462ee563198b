"""The two ways to hold a server process: as its parent, or through a reaper that is its parent.

A server that knows the lifeline watches its owner itself and is a plain child.
For any other, `_reaper.py` stands in between and watches for it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from ._descriptors import above_standard
from ._fork import close_in_child
from ._lifeline import LIFELINE, Lifeline
from .errors import MlxcelServerError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Child", "DirectChild", "ReapedChild"]

_REAPER = Path(__file__).with_name("_reaper.py")
_REAPER_START = 60.0  # seconds that Python gets to start; a loaded machine can take its time
_AFTER_TERM = 5.0
_ORPHAN_LOOK = 0.05


class Child(ABC):
    """A spawned server. `stdout` and `stderr` are the read ends of its pipes."""

    pid: int
    stdout: IO[bytes]
    stderr: IO[bytes]

    @abstractmethod
    def wait(self) -> int:
        """Block until it has ended; its exit code, negative for a signal. Called once, by one thread."""

    @abstractmethod
    def terminate(self) -> None:
        """Ask it to end: SIGTERM. Nothing happens when it has ended."""

    @abstractmethod
    def kill(self) -> None:
        """End it: SIGKILL. Nothing happens when it has ended."""

    @abstractmethod
    def close(self) -> None:
        """Give back what watching it took. A server that still runs ends by itself then."""


class DirectChild(Child):
    """A server that is our own child and watches us over a lifeline."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._lock = threading.RLock()
        self._ended = False
        self._lifeline = Lifeline()
        try:
            self._popen = _popen(
                command, {**environment, LIFELINE: self._lifeline.value}, (self._lifeline.descriptor,)
            )
        except BaseException:
            self._lifeline.close()  # also ends a child that was spawned before the interruption
            raise
        self._lifeline.spawned()
        self.pid = self._popen.pid
        self.stdout, self.stderr = _pipes(self._popen)

    def wait(self) -> int:
        if hasattr(os, "waitid"):
            # Leaves the status to be read under the lock: until then the process id is not used again,
            # so that no signal can reach a stranger.
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
            with self._lock:
                self._ended = True
                return self._popen.wait()
        code = self._popen.wait()
        self._ended = True
        return code

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def close(self) -> None:
        self._lifeline.close()

    def _signal(self, number: signal.Signals) -> None:
        with self._lock:
            if not self._ended:
                # The whole group: the binary may be a script around the server.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.pid, number)


class ReapedChild(Child):
    """A server that a reaper started for us.

    `grace` is what the reaper waits between SIGTERM and SIGKILL when we are
    gone; `folder` is the private folder that it then removes.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], *, grace: float, folder: Path | None
    ) -> None:
        if not sys.executable or getattr(sys, "frozen", False):
            raise MlxcelServerError(
                f"{command[0]} cannot watch the process that starts it, and there is no Python interpreter "
                "here to do so: use a current mlxcel binary, or start the server yourself and connect to it"
            )
        self._grace = grace
        self._control, theirs = (
            socket.socket(fileno=above_standard(end.detach())) for end in socket.socketpair()
        )
        close_in_child(self._control)
        arguments = [str(theirs.fileno()), str(os.getpid()), str(grace), str(folder or "")]
        try:
            with theirs:
                self._popen = _popen(
                    [sys.executable, "-I", "-S", str(_REAPER), *arguments, *command],
                    environment,
                    (theirs.fileno(),),
                )
            self.stdout, self.stderr = _pipes(self._popen)
            self._news = _Lines(self._control)
            self.pid = self._started(command[0])
        except BaseException:
            self._control.close()  # the reaper ends what it has started
            raise
        self._output_ended: Callable[[], bool] = lambda: True

    def tell_when_output_ended(self, ended: Callable[[], bool]) -> None:
        """Give the proof that the server is gone where the reaper cannot."""
        self._output_ended = ended

    def wait(self) -> int:
        while (line := self._news.next()) is not None:
            word, _, value = line.partition(" ")
            if word == "exit":
                self._popen.wait()
                return int(value)
        # The reaper was killed. Nobody may leave the server behind because of that.
        code = self._popen.wait()
        self._end_orphan()
        return code

    def terminate(self) -> None:
        self._command(b"T")

    def kill(self) -> None:
        self._command(b"K")

    def close(self) -> None:
        self._control.close()

    def _command(self, letter: bytes) -> None:
        with contextlib.suppress(OSError):  # the reaper has ended, and with it the server
            self._control.sendall(letter)

    def _started(self, binary: str) -> int:
        self._control.settimeout(_REAPER_START)
        try:
            line = self._news.next() or ""
        except TimeoutError:
            line = ""
        self._control.settimeout(None)
        word, _, value = line.partition(" ")
        if word == "pid":
            return int(value)
        self.stdout.close()
        with self.stderr as stderr:
            if word == "error":
                self._popen.wait()
                raise MlxcelServerError(f"cannot start {binary}: {os.strerror(int(value))}")
            # One that is only slow ends what it starts after all: its end of the socket has ended.
            self._control.close()
            self._popen.terminate()
            try:
                code = self._popen.wait(_AFTER_TERM)
            except subprocess.TimeoutExpired:
                code = None
            said = "" if code is None else stderr.read(4096).decode(errors="replace").strip()
        how = f"said nothing for {_REAPER_START:g} s" if code is None else f"ended with code {code}"
        raise MlxcelServerError(
            f"cannot start {binary}: {sys.executable}, which watches over it, {how}"
            + (f":\n{said}" if said else ""),
            stderr_tail=said,
        )

    def _end_orphan(self) -> None:
        """SIGTERM, then SIGKILL, while its open output proves that the process id is still the server's."""
        kill_at = time.monotonic() + self._grace
        number = signal.SIGTERM
        while not self._output_ended():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)
            while not self._output_ended() and (time.monotonic() < kill_at or number == signal.SIGKILL):
                time.sleep(_ORPHAN_LOOK)
            number = signal.SIGKILL


class _Lines:
    """Lines from a socket; None at its end."""

    def __init__(self, source: socket.socket) -> None:
        self._source = source
        self._rest = b""

    def next(self) -> str | None:
        while b"\n" not in self._rest:
            try:
                chunk = self._source.recv(1024)
            except TimeoutError:
                raise
            except OSError:
                return None
            if not chunk:
                return None
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()


def _popen(
    command: Sequence[str], environment: Mapping[str, str], descriptors: tuple[int, ...]
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            list(command),
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            close_fds=True,
            pass_fds=descriptors,
            # Ctrl-C in the terminal is the client's to handle.
            start_new_session=True,
        )
    except OSError as error:
        raise MlxcelServerError(f"cannot start {command[0]}: {error.strerror or error}") from error


def _pipes(popen: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    return cast("IO[bytes]", popen.stdout), cast("IO[bytes]", popen.stderr)
