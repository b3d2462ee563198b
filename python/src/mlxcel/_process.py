"""One run of the server binary: started, drained, watched, and always ended.

Nothing here knows HTTP. A `ServerProcess` belongs to the Python process that
created it: in a forked child `stop` does nothing, so that a child's exit never
takes the parent's server with it.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from typing import TYPE_CHECKING

from ._activity import Activity
from ._binary import knows
from ._child import Child, DirectChild, ReapedChild
from ._drain import Drain, Tail
from ._lifeline import LIFELINE
from .errors import MlxcelServerError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

__all__ = ["ServerProcess", "describe_exit", "no_thread"]

_LAST_WORDS = 1.0  # seconds that a dead child's pipes get to reach their end
_AFTER_KILL = 10.0  # seconds in which the kernel ends a killed process


class ServerProcess:
    """A running server and how it was ended.

    `grace` is how many seconds pass between SIGTERM and SIGKILL; `folder` the
    private folder of its socket, if any; `log` takes every line it writes.
    `steps` records the shutdown ladder as it was climbed: `"SIGTERM"`,
    `"SIGKILL"`, `"exited"`. `exited` is set when it has ended; `news` then too,
    and when it announces where it listens.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        grace: float,
        folder: Path | None = None,
        secret: str = "",
        log: Tail | None = None,
    ) -> None:
        self.steps: list[str] = []
        self.exited = threading.Event()
        self.news = threading.Event()
        self._owner = os.getpid()
        self._grace = grace
        # Reentrant: a signal handler or the collector may stop it in the middle of a stop.
        self._stop_lock = threading.RLock()
        self._listening: str | None = None
        self._code: int | None = None
        self._log = log
        self._at_exit: list[Callable[[], None]] = []
        self._child: Child
        if knows(command[0], LIFELINE.encode()) and not _sigterm_is_blocked():
            self._child = DirectChild(command, environment)
        else:
            self._child = ReapedChild(command, environment, grace=grace, folder=folder)
        name = f"mlxcel-server-{self.pid}"
        try:
            self._stdout = Drain(self._child.stdout, name=f"{name}-out", secret=secret, on_line=self._read)
            self._stderr = Drain(self._child.stderr, name=f"{name}-err", secret=secret, on_line=self._keep)
            if isinstance(self._child, ReapedChild):
                self._child.tell_when_output_ended(self._output_ended)
            self._exit_thread = threading.Thread(target=self._await_exit, name=f"{name}-exit", daemon=True)
            self._exit_thread.start()
        except BaseException as error:  # a child that nobody watches must not stay
            self._abandon()
            if isinstance(error, RuntimeError):
                raise no_thread(error) from error
            raise

    @property
    def pid(self) -> int:
        """The server's own process id, also when a reaper is its parent."""
        return self._child.pid

    @property
    def announces(self) -> bool:
        """Whether this kind of server says on stdout when it listens."""
        return isinstance(self._child, DirectChild)

    @property
    def listening(self) -> str | None:
        """The address the server announced on stdout, once it did (an older binary never does)."""
        return self._listening

    def poll(self) -> int | None:
        """The exit status, negative for a signal, or None while it runs."""
        return self._code

    def wait(self, timeout: float) -> int | None:
        """Like `poll`, but waits up to `timeout` seconds for the end."""
        self.exited.wait(timeout)
        return self._code

    def call_at_exit(self, callback: Callable[[], None]) -> None:
        """Call back, on another thread, as soon as the process has ended."""
        self._at_exit.append(callback)
        if self.exited.is_set():
            callback()

    def activity(self) -> Activity:
        """How much it has worked so far."""
        return Activity.of(self.pid, self._stdout.bytes_read + self._stderr.bytes_read)

    def stderr_tail(self, *, final: bool = False) -> str:
        """The last lines of stderr; `final` first waits for what a dead child had still in its pipe."""
        if final:
            self._stderr.join(_LAST_WORDS)
        return self._stderr.tail()

    def stop(self) -> None:
        """SIGTERM, wait for the grace, SIGKILL, give everything back. Again, or in a fork: nothing."""
        if os.getpid() != self._owner or threading.current_thread() is self._exit_thread:
            return
        with self._stop_lock:
            if "exited" not in self.steps:
                self._end()
                if self.poll() is not None:
                    self.steps.append("exited")
        self._stdout.join(_LAST_WORDS)
        self._stderr.join(_LAST_WORDS)

    def _end(self) -> None:
        if self.poll() is None:
            self.steps.append("SIGTERM")
            self._child.terminate()
            if self.wait(self._grace) is None:
                # Last, because a hard kill can strand wired GPU memory.
                self.steps.append("SIGKILL")
                self._child.kill()
                self.wait(_AFTER_KILL)

    def _abandon(self) -> None:
        """End at once what has hardly begun: there is no thread to wait for it, or to read what it writes."""
        self._child.kill()
        self._child.wait()
        self._child.close()
        for name in ("_stdout", "_stderr"):
            if isinstance(drain := getattr(self, name, None), Drain):
                drain.join(_LAST_WORDS)
        self._child.stdout.close()
        self._child.stderr.close()

    def _await_exit(self) -> None:
        self._code = self._child.wait()
        self._child.close()
        self.exited.set()
        self.news.set()
        for callback in self._at_exit:
            callback()

    def _output_ended(self) -> bool:
        return self._stdout.ended and self._stderr.ended

    def _read(self, line: str) -> None:
        self._keep(line)
        if self._listening is not None or not line.startswith("{"):
            return
        try:
            event = json.loads(line)
        except ValueError:
            return
        if event.get("event") == "listening" and isinstance(event.get("address"), str):
            self._listening = event["address"]
            self.news.set()

    def _keep(self, line: str) -> None:
        if self._log is not None:
            self._log.add(line)


def no_thread(error: RuntimeError) -> MlxcelServerError:
    """What Python's word that there is no thread to be had means to a user."""
    return MlxcelServerError(
        f"nothing can watch over the mlxcel server: {error}; end other processes or threads of yours, "
        "or raise the limit of them (ulimit -u)"
    )


def _sigterm_is_blocked() -> bool:
    """Whether a child of this thread would never hear SIGTERM; the reaper gives it a clean mask."""
    return signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def describe_exit(code: int) -> str:
    """`exited with code 1`, or `was ended by SIGKILL`."""
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
