"""`SharedServer`: one server for all of a user's processes that want the same model and options."""

from __future__ import annotations

import os
import sys
import time
import weakref
from typing import TYPE_CHECKING, Self

from . import _facts, _progress
from ._command import ServeOptions
from ._options import IDLE_TIMEOUT, STARTUP_TIMEOUT, check_timeout, named_options
from ._share_member import Member
from ._share_supervisor import ShareSupervisor
from ._single import Single
from ._state import Restart
from .errors import MlxcelConfigError, MlxcelStateError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from ._facts import Memory, Throughput
    from ._state import ServerState, StateChange
    from .errors import MlxcelServerCrashedError

__all__ = ["SharedServer"]

_LOOK = 0.02  # seconds between two looks of an async wait


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
        self._progress = progress
        self._supervisor = ShareSupervisor(self._model, self._member, restart=restart, on_state=on_state)
        # Holds what gives the lease back, not this object, which could otherwise never be collected.
        weakref.finalize(self, self._supervisor.stop).atexit = False

    # -- what it is ---------------------------------------------------------

    @property
    def model(self) -> str:
        """The model argument."""
        return self._model

    @property
    def state(self) -> ServerState:
        """Where it is in its life, as far as this user has seen."""
        return self._supervisor.state

    @property
    def generation(self) -> int:
        """Goes up by one with every process that this user meets; 0 before the first."""
        return self._member.generation

    @property
    def restarts(self) -> int:
        """How often this user found the server dead and brought it back."""
        return self._supervisor.restarts

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

    def poll(self) -> int | None:
        """Its exit status (negative for a signal), or None while it runs or was not joined."""
        process = self._member.process
        return None if process is None else process.poll()

    # -- its life -----------------------------------------------------------

    def start(self) -> Self:
        """Join the server, or start it, and wait until it can answer."""
        self.spawn()
        self.wait_ready()
        return self

    def spawn(self) -> None:
        """Join the server, or start it, without waiting until it can answer."""
        self._supervisor.spawn()

    def wait_ready(self) -> None:
        """Wait until the server can answer, and take a lease on it. On failure nothing is held."""
        if not _progress.wanted(self._progress):
            self._supervisor.settle()
            return
        bar = _progress.StartBar(self._model)
        try:
            self._supervisor.settle(bar.show)
        finally:
            bar.close()

    def wait_available(self, timeout: float | None = None) -> None:
        """Return at once when ready; else bring it back, for at most `timeout` seconds.

        Raises MlxcelServerCrashedError when it died too often, MlxcelStateError when
        it is stopped here, MlxcelTimeoutError after `timeout` seconds.
        """
        self._supervisor.wait(timeout)

    async def wait_available_async(self, timeout: float | None = None) -> None:
        """`wait_available` that lets the event loop run."""
        if self._supervisor.usable:
            return
        import anyio

        # Looks instead of threads that wait: hundreds of tasks may wait here, and be cancelled.
        deadline = None if timeout is None else time.monotonic() + timeout
        recovery = self._supervisor.recovery()
        while not recovery.done():
            if deadline is not None and timeout is not None and time.monotonic() >= deadline:
                raise self._supervisor.late(timeout)
            await anyio.sleep(_LOOK)
        recovery.result()

    def failure_since(self, generation: int, wait: float = 1.0) -> MlxcelServerCrashedError | None:
        """How the process of that generation ended, or None if it runs. Waits up to `wait` seconds."""
        return self._supervisor.failure_since(generation, wait)

    def restart(self) -> None:
        """Refused: the requests of others run on it."""
        raise MlxcelStateError(
            f"a shared server is not one user's to restart; `python -m mlxcel stop {self.pid}` ends it for "
            "all, and the next request starts another"
        )

    def stop(self) -> None:
        """Give back this user's lease. The server stays for its others, and leaves when it has none."""
        self._supervisor.stop()

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
        return f"<SharedServer {self._model!r}: {self.state}{where}>"
