"""`ManagedServer`: a private server and everything that can be asked of it."""

from __future__ import annotations

import os
import secrets
import time
import weakref
from typing import TYPE_CHECKING, Self

from . import _facts, _progress
from ._command import ServeOptions
from ._drain import Tail
from ._launcher import Launcher, Plan
from ._options import (
    SHUTDOWN_GRACE,
    STARTUP_TIMEOUT,
    check_api_key,
    check_timeout,
    named_options,
)
from ._single import Single
from ._socket_path import check_socket_path
from ._state import Restart, ServerState
from ._supervisor import Supervisor
from .errors import MlxcelConfigError, MlxcelStateError, MlxcelTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from ._facts import Memory, Throughput
    from ._state import StateChange
    from .errors import MlxcelServerCrashedError

__all__ = ["ManagedServer"]

_LOOK = 0.02  # seconds between two looks of an async wait


class ManagedServer(Single):
    """Starts `mlxcel serve`, waits until it can answer, keeps it alive, and ends it.

        with ManagedServer("mlxcel-tiny") as server:
            llm = LLM(socket=server.socket_path, api_key=server.api_key)

    Listens on a Unix socket in a private folder, or at `socket_path`; on TCP
    when `host` or `port` is given (a free port when `port` is None or 0).
    `binary` is looked for as `mlxcel._binary.find_binary` says. Without
    `api_key` the server gets a random one.

    `startup_timeout` is how many seconds a start may go without progress;
    `shutdown_grace` how many pass between SIGTERM and SIGKILL. `extra_args`
    are appended to the command line as they are.

    A server that dies is started again at the same address, as `restart` says
    (see `Restart`; None leaves it dead). `on_state` is called with a
    `StateChange` for each change of `state`, on a thread of the server's; what
    it refers to lives as long as the server does. `progress` draws a bar while
    it starts: in terminals and notebooks when None.

    The server stops with `stop()`, at the end of a `with` block, when the
    object is collected, when Python exits, and when the process is killed; but
    only with the process that started it: a forked child leaves it alone.

    Raises MlxcelServerError (with `stderr_tail`) when the server ends while it
    starts, MlxcelTimeoutError when it makes no progress, and
    MlxcelBinaryNotFoundError when there is no binary.
    """

    @named_options
    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        binary: str | os.PathLike[str] | None = None,
        host: str | None = None,
        port: int | None = None,
        socket_path: str | os.PathLike[str] | None = None,
        api_key: str | None = None,
        ctx_size: int | None = None,
        n_predict: int | None = None,
        n_parallel: int | None = None,
        alias: str | None = None,
        warmup: bool | None = None,
        extra_args: Sequence[str] = (),
        startup_timeout: float = STARTUP_TIMEOUT,
        shutdown_grace: float = SHUTDOWN_GRACE,
        restart: Restart | None = Restart(),  # noqa: B008 - frozen
        on_state: Callable[[StateChange], object] | None = None,
        progress: bool | None = None,
    ) -> None:
        if isinstance(extra_args, str):
            raise MlxcelConfigError(f"extra_args is a list of arguments: write [{extra_args!r}]")
        tcp = host is not None or port is not None
        if tcp and socket_path is not None:
            raise MlxcelConfigError("a server listens on a socket or on host and port, not both: give one")
        if port is not None and not 0 <= port <= 65535:
            raise MlxcelConfigError(f"port is between 0 and 65535, not {port}")
        if restart is not None and not isinstance(restart, Restart):
            raise MlxcelConfigError(
                f"restart is a mlxcel.Restart(…), or None for no restarts, not {restart!r}"
            )
        check_api_key(api_key)
        self._plan = Plan(
            model=os.fspath(model),
            binary=binary,
            tcp=tcp,
            host=host or "127.0.0.1",
            port=port or 0,
            socket_path=None if socket_path is None else check_socket_path(socket_path),
            api_key=api_key or secrets.token_urlsafe(32),
            options=ServeOptions(alias, ctx_size, n_predict, n_parallel, warmup, tuple(extra_args)),
            grace=check_timeout("shutdown_grace", shutdown_grace),
        )
        self._progress = progress
        self._log = Tail()
        self._launcher = Launcher(self._plan, self._log)
        self._supervisor = Supervisor(
            self._launcher,
            startup_timeout=check_timeout("startup_timeout", startup_timeout),
            restart=restart,
            on_state=on_state,
        )
        # Holds the supervisor, not this object, which could otherwise never be collected.
        weakref.finalize(self, self._supervisor.stop)

    # -- what it is ---------------------------------------------------------

    @property
    def model(self) -> str:
        """The model argument the server was given."""
        return self._plan.model

    @property
    def served_models(self) -> tuple[str, ...]:
        """Ids from `/v1/models`, known once the server is ready."""
        served = self._supervisor.served
        if served is None:
            raise MlxcelStateError("the server is not ready yet: call start() first")
        return served

    @property
    def api_key(self) -> str:
        """The Bearer key that every route except `/health` and `/` wants; the same after a restart."""
        return self._plan.api_key

    @property
    def socket_path(self) -> str | None:
        """The Unix socket, or None over TCP or before the start; the same after a restart."""
        address = self._launcher.address
        return None if address is None or address.socket_path is None else str(address.socket_path)

    @property
    def base_url(self) -> str:
        """Address of the OpenAI routes, as `http://127.0.0.1:8080/v1`; reached over `socket_path` if set."""
        address = self._launcher.address
        if address is None:
            raise MlxcelStateError("the server has no address yet: call start() first")
        return f"{address.root_url}/v1"

    # -- how it is ----------------------------------------------------------

    @property
    def state(self) -> ServerState:
        """Where it is in its life. In a forked child: where it was at the fork."""
        return self._supervisor.state

    @property
    def pid(self) -> int | None:
        """The server's own process id (of the last one, when it ended), or None when none was started."""
        process = self._supervisor.process
        return None if process is None else process.pid

    @property
    def generation(self) -> int:
        """Goes up by one with every process that is started; 0 before the first."""
        return self._supervisor.generation

    @property
    def restarts(self) -> int:
        """How often it was started again after a crash since `start()` or `restart()`."""
        return self._supervisor.restarts

    @property
    def uptime(self) -> float | None:
        """Seconds since its process was started, or None when none runs."""
        since = self._supervisor.spawned_at
        return None if since is None or self.poll() is not None else time.monotonic() - since

    @property
    def log_tail(self) -> str:
        """The last lines that it wrote to stdout and stderr, those of processes before a restart included."""
        return self._log.text()

    @property
    def stderr_tail(self) -> str:
        """The last lines that its process wrote to stderr."""
        process = self._supervisor.process
        return "" if process is None else process.stderr_tail()

    @property
    def shutdown_steps(self) -> tuple[str, ...]:
        """How the last process was ended: `"SIGTERM"`, `"SIGKILL"` (after the grace), `"exited"`."""
        process = self._supervisor.process
        return () if process is None else tuple(process.steps)

    @property
    def memory(self) -> Memory | None:
        """What it holds, asked of the server now; None from one that does not tell (an older binary)."""
        return _facts.memory(self._props())

    @property
    def throughput(self) -> Throughput | None:
        """Its tokens so far and per second, asked now; None from one that does not tell (an older binary)."""
        return _facts.throughput(self._props())

    def poll(self) -> int | None:
        """Its exit status (negative for a signal), or None while it runs or was never started."""
        process = self._supervisor.process
        return None if process is None else process.poll()

    def failure_since(self, generation: int, wait: float = 1.0) -> MlxcelServerCrashedError | None:
        """How the process of that generation ended, or None if it runs.

        Waits up to `wait` seconds, because a broken connection can be noticed
        before the exit is. In a forked child always None: only the process that
        started the server knows.
        """
        return self._supervisor.failure_since(generation, wait)

    # -- its life -----------------------------------------------------------

    def start(self) -> Self:
        """Start the server and wait until it can answer. A running one is left as it is."""
        self.spawn()
        self.wait_ready()
        return self

    def spawn(self) -> None:
        """Start the process without waiting for it; `wait_ready` comes next."""
        self._supervisor.start()

    def wait_ready(self) -> None:
        """Wait until the server can answer and is proven to be ours. On failure it is stopped."""
        try:
            self._wait_ready()
        except BaseException:
            self.stop()
            raise

    def wait_available(self, timeout: float | None = None) -> None:
        """Return at once when it is ready; wait while it starts or is started again.

        Raises the error it failed with when it was given up, MlxcelStateError when
        it is stopped, MlxcelTimeoutError after `timeout` seconds.
        """
        self._supervisor.wait(timeout)

    async def wait_available_async(self, timeout: float | None = None) -> None:
        """`wait_available` that lets the event loop run."""
        if self.state is ServerState.READY:
            return
        import anyio

        # Looks instead of a thread that waits: hundreds of tasks may wait here, and be cancelled.
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                self._supervisor.wait(0.0)
            except MlxcelTimeoutError:
                if deadline is not None and time.monotonic() >= deadline:
                    raise MlxcelTimeoutError(
                        f"the mlxcel server is still {self.state} after {timeout:g} s"
                    ) from None
                await anyio.sleep(_LOOK)
            else:
                return

    def restart(self) -> None:
        """End the process and start another one, in any state; address, key, model and options stay.

        Returns when it is ready; raises what `start` does. Requests that are
        running fail with MlxcelServerCrashedError.
        """
        self._supervisor.restart()

    def stop(self) -> None:
        """End the server: SIGTERM, SIGKILL after `shutdown_grace` seconds. Safe to call at any time."""
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
        where = "" if self.poll() is not None or self.pid is None else f", pid {self.pid}"
        return f"<ManagedServer {self.model!r}: {self.state}{where} at {self._launcher.address}>"

    # -- inside -------------------------------------------------------------

    def _wait_ready(self) -> None:
        supervisor = self._supervisor
        if supervisor.state is ServerState.READY or not _progress.wanted(self._progress):
            supervisor.wait()
            return
        bar = _progress.StartBar(self.model)
        try:
            supervisor.wait(look=lambda: bar.show(supervisor.health))
        finally:
            bar.close()

    def _props(self) -> object:
        """`/props`, or None when it has no such route."""
        self.wait_available(0.0)
        try:
            status, body = self._launcher.probe().get("/props")
        except OSError as error:
            raise MlxcelTimeoutError(f"the server does not answer: {error}") from error
        return body if status == 200 else None
