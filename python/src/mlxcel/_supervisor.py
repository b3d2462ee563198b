"""Keeps one server alive: starts it, follows it to ready, starts it again when it dies.

One daemon thread does all of that, so that a Ctrl-C in the main thread never
tears a start apart. The thread holds the supervisor and nothing that holds it:
the `ManagedServer` in front of it can be collected, and then stops it.
"""

from __future__ import annotations

import copy
import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Literal

from ._endings import Endings, crash_of, first_line, given_up
from ._health import Health, wait_until_ready
from ._process import no_thread
from ._state import Attempts, ServerState, StateChange
from .errors import (
    MlxcelError,
    MlxcelServerError,
    MlxcelStateError,
    MlxcelTimeoutError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._launcher import Launcher
    from ._process import ServerProcess
    from ._state import Restart
    from .errors import MlxcelServerCrashedError

__all__ = ["Supervisor"]

logger = logging.getLogger("mlxcel.server")

_PORT_ATTEMPTS = 5
_LOOK = 0.1  # seconds between two looks of one that shows the progress
_UNWIND = 10.0  # seconds that the thread gets to finish once its process has ended

Wish = Literal["run", "restart", "stop", "over"]
"""What is to become of the server; "over" when it failed for good and the thread only tidies up."""

_ASKED: dict[Wish, str] = {
    "stop": "the mlxcel server was stopped while it had the request",
    "restart": "the mlxcel server was restarted, by restart(), while it had the request",
}


class Supervisor:
    """The life of one server. Every method may be called from any thread.

    In a forked child the server belongs to the parent: what would start or end
    it does nothing or raises.
    """

    def __init__(
        self,
        launcher: Launcher,
        *,
        startup_timeout: float,
        restart: Restart | None,
        on_state: Callable[[StateChange], object] | None,
    ) -> None:
        self._launcher = launcher
        self._startup_timeout = startup_timeout
        self._rules = restart
        self._on_state = on_state
        self._owner = os.getpid()
        # Reentrant: a signal handler or the collector may call `stop` while its thread holds it.
        self._changed = threading.Condition(threading.RLock())
        self._thread: threading.Thread | None = None
        self._wish: Wish = "stop"
        self._launching = False  # between the decision to start and the first process
        self._error: Exception | None = None  # why the last run ended by itself
        self._endings = Endings()
        self.state = ServerState.STOPPED
        self.generation = 0
        self.restarts = 0
        self.process: ServerProcess | None = None
        self.served: tuple[str, ...] | None = None
        self.health = Health()
        self.spawned_at: float | None = None

    # -- what others ask for ------------------------------------------------

    @property
    def foreign(self) -> bool:
        """Whether this is a forked child, and the server another process's."""
        return os.getpid() != self._owner

    def start(self) -> None:
        """Spawn the process, unless one runs or is about to; returns when it is spawned."""
        self._refuse_in_fork()
        self._refuse_in_callback()
        with self._changed:
            while self._thread is not None and not self._alive():
                self._changed.wait()  # for the end of the one before
            before = self.generation
            if self._thread is None:
                self._begin()
            thread = self._thread
            while self._launching and self._thread is thread:
                self._changed.wait()
            if self._error is not None and self.generation == before:
                raise copy.copy(self._error)

    def wait(self, timeout: float | None = None, *, look: Callable[[], None] | None = None) -> None:
        """Block until it is ready. `look` is called a few times a second meanwhile."""
        if self._is_ready():
            return
        self._refuse_in_fork()
        self._refuse_in_callback()
        deadline = None if timeout is None else time.monotonic() + timeout
        waited = False
        while True:
            with self._changed:
                if self._is_ready():
                    return
                if self._thread is None or self._wanted("stop"):
                    raise self._no_server(waited=waited)
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise MlxcelTimeoutError(f"the mlxcel server is still {self.state} after {timeout:g} s")
                self._changed.wait(left if look is None else min(left or _LOOK, _LOOK))
            waited = True
            if look is not None:
                look()

    def failure_since(self, generation: int, wait: float) -> MlxcelServerCrashedError | None:
        """How the process of that generation ended; waits up to `wait` seconds for it to do so."""
        if self.foreign:
            return None
        deadline = time.monotonic() + wait
        with self._changed:
            while (error := self._endings.error(generation, restarting=self._alive())) is None:
                left = deadline - time.monotonic()
                if left <= 0 or generation > self.generation:
                    return None
                self._changed.wait(left)
            return error

    def restart(self) -> None:
        """End the process and start another at the same address; returns when that one is ready."""
        self._refuse_in_fork()
        with self._changed:
            running = self._alive()
            if running:
                self._wish = "restart"
                self._changed.notify_all()
            process, before = self.process, self.generation
        if not running:
            self.start()
        elif threading.current_thread() is self._thread:
            return  # from a callback: it happens when that returns
        else:
            if process is not None:
                process.stop()
            with self._changed:
                while self._alive() and self.generation == before:
                    self._changed.wait()
        self.wait()

    def stop(self) -> None:
        """End the server: SIGTERM, SIGKILL after the grace. Safe in any state; in a fork it does nothing."""
        if self.foreign:
            return
        with self._changed:
            thread, process = self._thread, self.process
            if thread is not None:
                self._wish = "stop"
                self._changed.notify_all()
        if process is not None:
            process.stop()
        if thread is None or thread is threading.current_thread():
            return
        thread.join(_UNWIND)
        # The thread may have been about to spawn: then there is a process that was none before.
        if self.process is not process and self.process is not None:
            self.process.stop()
            thread.join(_UNWIND)

    # -- the thread ---------------------------------------------------------

    def _begin(self) -> None:
        self._wish = "run"
        self._error = None
        self._launching = True
        self.served = None
        self.restarts = 0
        self._thread = threading.Thread(target=self._main, name="mlxcel-supervisor", daemon=True)
        try:
            self._thread.start()
        except BaseException as error:
            self._thread = None
            self._launching = False
            if isinstance(error, RuntimeError):
                raise no_thread(error) from error
            raise

    def _main(self) -> None:
        error: Exception | None
        try:
            error = self._live()
        except Exception as unexpected:  # noqa: BLE001 - carried to whoever waits
            error = unexpected
            self._settle()
        if self.process is not None:
            self.process.stop()
        self._launcher.close()
        if self._wanted("stop"):
            error = None
        if self.state is not ServerState.CRASHED or error is None:
            self._set(ServerState.STOPPED, first_line(error) if error else "asked to stop", error)
        with self._changed:
            self._error = error
            self._launching = False
            self._thread = None
            self._changed.notify_all()

    def _live(self) -> Exception | None:
        """Run processes one after the other; returns why no other follows, None when asked to stop."""
        attempts = self._attempts()
        first, ports = True, _PORT_ATTEMPTS
        while not self._wanted("stop"):
            process, ready_for = None, 0.0
            fault: Exception
            try:
                process = self._launch()
                self._follow(process)
                first = False
                ready_for = self._watch(process)
                fault = crash_of(process)
            except (MlxcelError, OSError) as error:
                fault = error
            if process is not None:
                self._bury(process, fault)
            if self._wanted("stop"):
                break
            if self._wanted("restart"):
                attempts = self._attempts()
                self._set(ServerState.RESTARTING, "restart() was called")
            elif not first:
                given_up = self._recover(attempts, fault, ready_for)
                if given_up is not None:
                    return given_up
            elif ports and self._launcher.lost_its_port(fault):
                ports -= 1
                self._launcher.forget_port()
            elif self._settle():
                if getattr(fault, "exit_code", None) is not None:
                    self._set(ServerState.CRASHED, first_line(fault), fault)
                return fault
        return None

    def _settle(self) -> bool:
        """Let it be over, unless somebody has just asked for something else."""
        with self._changed:
            if self._wish == "run":
                self._wish = "over"
            return self._wish == "over"

    def _attempts(self) -> Attempts | None:
        return None if self._rules is None else Attempts(self._rules)

    def _launch(self) -> ServerProcess:
        """Spawn a process."""
        process = self._launcher.launch()
        with self._changed:
            self.process = process
            self.generation += 1
            self.spawned_at = time.monotonic()
            self.health = Health()
            self._launching = False
            if self._wanted("restart"):
                self._wish = "run"  # this is the new one
        self._set(ServerState.STARTING)
        if self._wanted("stop"):
            process.stop()  # whoever asked could not, without knowing it
        return process

    def _follow(self, process: ServerProcess) -> None:
        """Wait until it is ready."""
        served = wait_until_ready(
            process,
            self._launcher.probe(),
            timeout=self._startup_timeout,
            private=self._launcher.private,
            on_health=self._progressed,
        )
        self._launcher.adopt_socket()
        if self.state is ServerState.STARTING:  # an older one loads before it answers
            self._set(ServerState.LOADING)
        with self._changed:
            self.served = served
        self._set(ServerState.READY)

    def _progressed(self, health: Health) -> None:
        with self._changed:
            self.health = health
            self._changed.notify_all()
        if self.state is ServerState.STARTING:
            self._set(ServerState.LOADING, health.stage or "")

    def _watch(self, process: ServerProcess) -> float:
        """Wait for the end of a process that is ready; how long it was, in seconds."""
        since = time.monotonic()
        process.exited.wait()
        return time.monotonic() - since

    def _bury(self, process: ServerProcess, fault: Exception) -> None:
        """End what is left of it, and keep how it ended for requests that were on their way."""
        process.stop()
        asked = _ASKED.get(self._wish) if "SIGTERM" in process.steps else None
        with self._changed:
            self._endings.add(self.generation, asked or str(fault), process)
            self._changed.notify_all()

    def _recover(self, attempts: Attempts | None, fault: Exception, ready_for: float) -> Exception | None:
        """Sit out the pause before the next start; the error for everybody when there is to be none."""
        pause = None if attempts is None else attempts.pause(time.monotonic(), ready_for)
        if pause is not None:
            self._set(ServerState.CRASHED, first_line(fault), fault)
            self.restarts += 1
            self._set(ServerState.RESTARTING, f"in {pause:.3g} s")
            with self._changed:
                self._changed.wait_for(lambda: not self._wanted("run"), pause)
            return None
        if not self._settle():
            return None
        why = "restarts are off" if self._rules is None else f"given up after {self.restarts} restarts"
        error = given_up(fault, why)
        self._set(ServerState.CRASHED, f"{first_line(fault)}; {why}", error)
        return error

    def _set(self, new: ServerState, detail: str = "", error: Exception | None = None) -> None:
        """Take a state, and tell the log and the callback."""
        with self._changed:
            old, self.state = self.state, new
            self._changed.notify_all()
        if new is old:
            return
        pid = None if self.process is None else self.process.pid
        level = logging.WARNING if new is ServerState.CRASHED and old is ServerState.READY else logging.INFO
        logger.log(level, "server %s: %s%s", pid or "(no process)", new, f": {detail}" if detail else "")
        if self._on_state is not None:
            try:
                self._on_state(StateChange(old, new, pid, detail, error))
            except Exception:
                logger.exception("the on_state callback failed")

    # -- helpers ------------------------------------------------------------

    # As calls, because what other threads change is not what it was a line before.

    def _wanted(self, wish: Wish) -> bool:
        return self._wish == wish

    def _alive(self) -> bool:
        """Whether a server runs, or one will."""
        return self._thread is not None and self._wish in ("run", "restart")

    def _is_ready(self) -> bool:
        """Whether requests are answered; not in the moment between a death and its notice."""
        return (
            self.state is ServerState.READY and self.process is not None and not self.process.exited.is_set()
        )

    def _refuse_in_fork(self) -> None:
        if self.foreign:
            raise MlxcelStateError(
                f"the server belongs to process {self._owner}, and this is a fork of it: connect to the "
                "server with LLM(socket=…, api_key=…), or start one of this process's own"
            )

    def _refuse_in_callback(self) -> None:
        if threading.current_thread() is self._thread:
            raise MlxcelStateError(
                "an on_state callback runs on the thread that starts the server, and cannot wait for it: "
                "call stop() or restart(), or do the rest on another thread"
            )

    def _no_server(self, *, waited: bool) -> Exception:
        if self._error is not None:
            return copy.copy(self._error)  # each thread that waits raises one of its own
        if waited:
            return MlxcelServerError("the server was stopped while it started")
        if self.generation == 0:
            return MlxcelStateError("the server was not started: call start() first")
        return MlxcelStateError("the server is stopped: call start()")
