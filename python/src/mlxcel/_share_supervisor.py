"""The life of a shared server as one user sees it: joined, waited for, found dead, brought back."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from concurrent.futures import Future
from typing import TYPE_CHECKING

from ._lease import LeaseRefusedError
from ._state import Attempts, ServerState, StateChange
from .errors import MlxcelServerCrashedError, MlxcelServerError, MlxcelStateError, MlxcelTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._health import Health
    from ._share_member import Member
    from ._share_process import SharedProcess
    from ._state import Restart

__all__ = ["ShareSupervisor"]

logger = logging.getLogger("mlxcel.server")

_NOTICE_PAUSE = 0.01
_STOP_PAUSE = 0.05
_LEAVING_SECONDS = 5.0  # a server that lets nobody in any more is gone soon
_TAIL_LINES = 20  # of the log in an error; its stderr_tail has more
_JOINS = 5  # servers that may leave just as this user joins, before that is called an error


def _unseen(health: Health) -> None:
    pass


class ShareSupervisor:
    """Brings a server that died back when somebody needs it. Every method may be called from any thread.

    Nobody watches in between: of many idle users none has to start what none needs.
    """

    def __init__(
        self,
        model: str,
        member: Member,
        *,
        restart: Restart | None,
        on_state: Callable[[StateChange], object] | None,
    ) -> None:
        self._model = model
        self._member = member
        self._on_state = on_state
        self._attempts = None if restart is None else Attempts(restart)
        self._ready_at: float | None = None
        self._stopped = True
        self._recovering: Future[None] | None = None
        self.state = ServerState.STOPPED
        self.restarts = 0
        self.renew_locks()
        _instances.add(self)

    def renew_locks(self) -> None:
        """In a forked child: a thread that it does not have may have held them."""
        self._lock = threading.RLock()  # a signal handler or the collector may stop it meanwhile
        self._recovery_lock = threading.Lock()
        self._wake = threading.Event()
        self._recovering = None

    @property
    def usable(self) -> bool:
        """Ready as far as known, and leased by this process."""
        return self.state is ServerState.READY and self._member.has_lease

    def spawn(self) -> None:
        """Join the server, or start it, without waiting until it can answer."""
        with self._lock:
            self._stopped = False
            self._wake.clear()
            process = self._member.process
            if process is None or process.poll() is not None:
                self._change(ServerState.STARTING)
                self._member.enter()

    def settle(self, on_health: Callable[[Health], None] = _unseen) -> None:
        """Wait until the server can answer, and hold it. On failure nothing is held."""
        try:
            with self._lock:
                self._bring_up(recovering=False, on_health=on_health)
        except BaseException:
            self.stop()
            raise

    def wait(self, timeout: float | None) -> None:
        """Return at once when it is ready; else bring it back, for at most `timeout` seconds."""
        if self.usable:
            return
        recovery = self.recovery()
        try:
            recovery.result(timeout)
        except TimeoutError:
            if recovery.done() or timeout is None:
                raise
            raise self.late(timeout) from None

    def late(self, timeout: float) -> MlxcelTimeoutError:
        """The error for who does not wait any longer."""
        return MlxcelTimeoutError(
            f"the shared server was not ready within {timeout:g} s (it is {self.state})"
        )

    def recovery(self) -> Future[None]:
        """What brings the server back, in a thread, once for all who wait."""
        with self._recovery_lock:
            if self._stopped:
                raise MlxcelStateError("this shared server is closed here: call start() first")
            if self._recovering is None:
                self._recovering = Future()
                threading.Thread(
                    target=self._recover, args=(self._recovering,), name="mlxcel-rejoin", daemon=True
                ).start()
            return self._recovering

    def failure_since(self, generation: int, wait: float) -> MlxcelServerCrashedError | None:
        """How the process of that generation ended; waits up to `wait` seconds for it to do so."""
        deadline = time.monotonic() + wait
        while True:
            end = None if self._stopped else self._member.end_of(generation)
            if end is not None:
                return self._crashed(*end)
            if time.monotonic() >= deadline:
                return None
            time.sleep(_NOTICE_PAUSE)

    def stop(self) -> None:
        """Give the lease back; whoever waits here gets MlxcelStateError."""
        self._stopped = True
        self._wake.set()
        while True:  # whoever waits for a process under the lock may have entered the next one just now
            process = self._member.process
            if process is not None:
                process.abandon()
            if self._lock.acquire(timeout=_STOP_PAUSE):
                break
        try:
            self._member.leave()
            self._change(ServerState.STOPPED)
        finally:
            self._lock.release()

    def _recover(self, future: Future[None]) -> None:
        problem: BaseException | None = None
        try:
            with self._lock:
                self._bring_up(recovering=True, on_health=_unseen)
        except BaseException as error:  # noqa: BLE001 - carried to whoever waits
            problem = error
        with self._recovery_lock:
            self._recovering = None  # the next call may try again
        if problem is None:
            future.set_result(None)
        else:
            future.set_exception(problem)

    def _bring_up(self, *, recovering: bool, on_health: Callable[[Health], None]) -> None:
        """From whatever state to ready and leased."""
        joins = 0
        while not self.usable:
            if self._stopped:
                raise MlxcelStateError("this shared server was closed here while it was waited for")
            process = self._member.process
            if process is not None and process.poll() is not None:
                self._after_end(process)
                process = None
            if self._stopped:
                continue  # while it paused
            if process is None:
                process = self._member.enter()
            self._change(ServerState.LOADING)
            try:
                self._member.settle(process, on_health)
            except (MlxcelServerError, OSError) as error:
                leaving = not isinstance(error, MlxcelServerError) or isinstance(error, LeaseRefusedError)
                code = process.wait(_LEAVING_SECONDS) if leaving else process.poll()
                joins += code == 0
                if code is None or joins > _JOINS or not (code == 0 or recovering):
                    if isinstance(error, MlxcelServerError):
                        raise
                    raise MlxcelServerError(f"the shared server does not answer: {error}") from error
            else:
                self._ready_at = time.monotonic()
                self._change(ServerState.READY)

    def _after_end(self, process: SharedProcess) -> None:
        """Note how a process ended; pause before the next, or give up."""
        end = self._member.end_of(self._member.generation)
        if process.exit_code == 0:  # it left, as idle servers do, or was told to
            return
        error = self._crashed(*(end or ("ended", "", None)))
        self._change(ServerState.CRASHED, str(error), error)
        if self._member.is_replaced():  # by another user, who has waited for us
            self._change(ServerState.RESTARTING, "by another process that uses it")
            return
        lived = 0.0 if self._ready_at is None else time.monotonic() - self._ready_at
        self._ready_at = None
        pause = None if self._attempts is None else self._attempts.pause(time.monotonic(), lived)
        if pause is None:
            error.restarting = False
            raise error
        self.restarts += 1
        self._change(ServerState.RESTARTING, f"in {pause:g} s")
        self._wake.wait(pause)

    def _crashed(self, end: str, tail: str, code: int | None) -> MlxcelServerCrashedError:
        lines = tail.splitlines()[-_TAIL_LINES:]
        said = "\n".join((":", *lines)) if lines else ""
        return MlxcelServerCrashedError(
            f"the shared server {end}{said}",
            stderr_tail=tail,
            exit_code=code,
            restarting=self._attempts is not None,
        )

    def _change(self, new: ServerState, detail: str = "", error: Exception | None = None) -> None:
        old, self.state = self.state, new
        if old is new:
            return
        logger.debug("shared server %r: %s, then %s %s", self._model, old, new, detail)
        if self._on_state is not None:
            process = self._member.process
            try:
                self._on_state(StateChange(old, new, None if process is None else process.pid, detail, error))
            except Exception:
                logger.exception("on_state failed")


_instances: weakref.WeakSet[ShareSupervisor] = weakref.WeakSet()


def _after_fork() -> None:
    for supervisor in list(_instances):
        supervisor.renew_locks()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
