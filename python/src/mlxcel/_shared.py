"""`SharedServer`: one server for all of a user's processes that want the same model and options."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import weakref
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from functools import partial
from http.client import HTTPException
from typing import TYPE_CHECKING, Self

from . import _facts, _progress
from ._command import ServeOptions
from ._options import IDLE_TIMEOUT, STARTUP_TIMEOUT, check_timeout, named_options
from ._share_member import Member
from ._single import Single
from ._state import Attempts, Restart, ServerState, StateChange
from .errors import (
    MlxcelConfigError,
    MlxcelServerCrashedError,
    MlxcelServerError,
    MlxcelStateError,
    MlxcelTimeoutError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from ._facts import Memory, Throughput
    from ._health import Health
    from ._share_process import SharedProcess

__all__ = ["SharedServer"]

logger = logging.getLogger("mlxcel.server")

_NOTICE_PAUSE = 0.01
_STOP_PAUSE = 0.05
_LEAVING_SECONDS = 5.0  # a server that lets nobody in any more is gone soon
_TAIL_LINES = 20  # of the log in an error; its stderr_tail has more
_JOINS = 5  # servers that may leave just as this user joins, before that is called an error


class SharedServer(Single):
    """Joins the server that already runs for this model and these options, or starts it for all.

        with SharedServer("mlxcel-tiny") as server:
            llm = LLM(socket=server.socket_path, api_key=server.api_key)

    It belongs to none of its users: `stop` gives back this user's lease, and
    the server ends itself `idle_timeout` seconds after the last one is gone (the
    number of whoever started it counts). One that died is started again, under
    the same address and key, by the first user that needs it, as `restart` says.

    A server is shared by the processes of one user of the machine that name the
    same model, options and server binary; a folder or binary that changed is
    another one.

    Raises MlxcelConfigError for a binary that cannot be shared, and the errors
    of `ManagedServer`.
    """

    @named_options
    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        binary: str | os.PathLike[str] | None = None,
        ctx_size: int | None = None,
        n_predict: int | None = None,
        n_parallel: int | None = None,
        alias: str | None = None,
        warmup: bool | None = None,
        extra_args: Sequence[str] = (),
        startup_timeout: float = STARTUP_TIMEOUT,
        idle_timeout: float = IDLE_TIMEOUT,
        restart: Restart | None = Restart(),  # noqa: B008 - frozen
        on_state: Callable[[StateChange], object] | None = None,
        progress: bool | None = None,
    ) -> None:
        if sys.platform == "win32":
            raise MlxcelConfigError("a server cannot be shared on Windows: leave share=True out")
        if isinstance(extra_args, str):
            raise MlxcelConfigError(f"extra_args is a list of arguments: write [{extra_args!r}]")
        self._model = os.fspath(model)
        self._member = Member(
            self._model,
            binary,
            ServeOptions(alias, ctx_size, n_predict, n_parallel, warmup, tuple(extra_args)),
            startup_timeout=check_timeout("startup_timeout", startup_timeout),
            idle_timeout=check_timeout("idle_timeout", idle_timeout),
        )
        self._on_state = on_state
        self._progress = progress
        self._attempts = None if restart is None else Attempts(restart)
        self._restarts = 0
        self._ready_at: float | None = None
        self._state = ServerState.STOPPED
        self._stopped = True
        self._recovering: Future[None] | None = None
        self._renew_locks()
        _instances.add(self)

    # -- what it is ---------------------------------------------------------

    @property
    def model(self) -> str:
        """The model argument."""
        return self._model

    @property
    def state(self) -> ServerState:
        """Where it is in its life, as far as this user has seen."""
        return self._state

    @property
    def generation(self) -> int:
        """Goes up by one with every process that this user meets; 0 before the first."""
        return self._member.generation

    @property
    def restarts(self) -> int:
        """How often this user found the server dead and brought it back."""
        return self._restarts

    @property
    def pid(self) -> int | None:
        """The server's process id, or None before the start and after the end."""
        process = self._member.process
        return None if process is None else process.pid

    @property
    def socket_path(self) -> str | None:
        """The Unix socket, or None before the start."""
        return None if self._member.key is None else str(self._member.place.socket)

    @property
    def base_url(self) -> str:
        """Address of the OpenAI routes; reached over `socket_path`."""
        return "http://localhost/v1"

    @property
    def api_key(self) -> str:
        """The key of all this user's shared servers."""
        if self._member.key is None:
            raise MlxcelStateError("the server has no key yet: call start() first")
        return self._member.key

    @property
    def served_models(self) -> tuple[str, ...]:
        """Ids from `/v1/models`, known once the server is ready."""
        if self._member.served is None:
            raise MlxcelStateError("the server is not ready yet: call start() first")
        return self._member.served

    @property
    def uptime(self) -> float | None:
        """Seconds since its process was started, asked of the server now."""
        seconds = _facts.number(self._member.props(), "uptime_seconds")
        return None if seconds is None else float(seconds)

    @property
    def users(self) -> int | None:
        """How many hold a lease on it, this one included, asked of the server now."""
        count = _facts.number(self._member.props(), "leases")
        return None if count is None else int(count)

    @property
    def memory(self) -> Memory | None:
        """What it holds, asked of the server now."""
        return _facts.memory(self._member.props())

    @property
    def throughput(self) -> Throughput | None:
        """Its tokens so far and per second over all its users, asked now."""
        return _facts.throughput(self._member.props())

    @property
    def log_tail(self) -> str:
        """The last that the server wrote."""
        process = self._member.process
        return "" if process is None else process.stderr_tail()

    # -- its life -----------------------------------------------------------

    def start(self) -> Self:
        """Join the server, or start it, and wait until it can answer."""
        self.spawn()
        self.wait_ready()
        return self

    def spawn(self) -> None:
        """Join the server, or start it, without waiting until it can answer."""
        with self._lock:
            self._stopped = False
            process = self._member.process
            if process is None or process.poll() is not None:
                self._change(ServerState.STARTING)
                self._member.enter()

    def wait_ready(self) -> None:
        """Wait until the server can answer, and take a lease on it. On failure nothing is held."""
        bar = _progress.StartBar(self._model) if _progress.wanted(self._progress) else None
        try:
            with self._lock:
                self._bring_up(recovering=False, on_health=_unseen if bar is None else bar.show)
        except BaseException:
            self.stop()
            raise
        finally:
            if bar is not None:
                bar.close()

    def wait_available(self, timeout: float | None = None) -> None:
        """Return at once when ready; else bring it back, for at most `timeout` seconds."""
        if self._usable:
            return
        try:
            self._recovery().result(timeout)
        except FutureTimeoutError:
            raise MlxcelTimeoutError(
                f"the shared server was not ready within {timeout:g} s (it is {self._state})"
            ) from None

    async def wait_available_async(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as above
        """`wait_available` that lets the event loop run."""
        if not self._usable:
            from anyio.to_thread import run_sync

            await run_sync(partial(self.wait_available, timeout), abandon_on_cancel=True)

    def failure_since(self, generation: int, wait: float = 1.0) -> MlxcelServerCrashedError | None:
        """How the process of that generation ended, or None if it runs. Waits up to `wait` seconds."""
        deadline = time.monotonic() + wait
        while True:
            end = None if self._stopped else self._member.end_of(generation)
            if end is not None:
                return self._crashed(*end)
            if time.monotonic() >= deadline:
                return None
            time.sleep(_NOTICE_PAUSE)

    def restart(self) -> None:
        """Refused: the requests of others run on it."""
        raise MlxcelStateError(
            f"a shared server is not one user's to restart; `python -m mlxcel stop {self.pid}` ends it for "
            "all, and the next request starts another"
        )

    def stop(self) -> None:
        """Give back this user's lease. The server stays for its others, and leaves when it has none."""
        self._stopped = True
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

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        where = "" if self.pid is None else f", pid {self.pid} at unix:{self.socket_path}"
        return f"<SharedServer {self._model!r}: {self._state}{where}>"

    # -- inside -------------------------------------------------------------

    @property
    def _usable(self) -> bool:
        return self._state is ServerState.READY and self._member.has_lease

    def _recovery(self) -> Future[None]:
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
        while not self._usable:
            if self._stopped:
                raise MlxcelStateError("this shared server was closed here while it was waited for")
            process = self._member.process
            if process is None or process.poll() is not None:
                if process is not None:
                    self._after_end(process)
                process = self._member.enter()
            self._change(ServerState.LOADING)
            try:
                self._member.settle(process, on_health)
            except (MlxcelServerError, OSError, HTTPException) as error:
                code = process.wait(_LEAVING_SECONDS)
                joins += 1
                if code is None or joins > _JOINS or not (code == 0 or recovering):
                    if isinstance(error, MlxcelServerError):
                        raise
                    raise MlxcelServerError(f"the shared server does not answer: {error}") from error
            else:
                self._ready_at = time.monotonic()
                self._change(ServerState.READY)

    def _after_end(self, process: SharedProcess) -> None:
        """Note how a process ended; pause before the next, or give up."""
        end = self._member.end_of(self.generation)
        if process.exit_code == 0:  # it left, as idle servers do, or was told to
            return
        error = self._crashed(*(end or ("ended", "", None)))
        self._change(ServerState.CRASHED, str(error), error)
        lived = 0.0 if self._ready_at is None else time.monotonic() - self._ready_at
        self._ready_at = None
        pause = None if self._attempts is None else self._attempts.pause(time.monotonic(), lived)
        if pause is None:
            error.restarting = False
            raise error
        self._restarts += 1
        self._change(ServerState.RESTARTING, f"in {pause:g} s")
        time.sleep(pause)

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
        old, self._state = self._state, new
        if old is new:
            return
        logger.debug("shared server %r: %s, then %s %s", self._model, old, new, detail)
        if self._on_state is not None:
            try:
                self._on_state(StateChange(old, new, self.pid, detail, error))
            except Exception:
                logger.exception("on_state failed")

    def _renew_locks(self) -> None:
        self._lock = threading.RLock()  # a signal handler or the collector may stop it meanwhile
        self._recovery_lock = threading.Lock()
        self._recovering = None


def _unseen(health: Health) -> None:
    pass


_instances: weakref.WeakSet[SharedServer] = weakref.WeakSet()


def _after_fork() -> None:
    """A fork may come while a thread, which the child does not have, holds a lock."""
    for server in list(_instances):
        server._renew_locks()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
