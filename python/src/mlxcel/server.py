"""`ManagedServer`: a private server process and the proof that it is ours."""

from __future__ import annotations

import os
import re
import secrets
import socket
import sys
import threading
import weakref
from functools import partial
from typing import TYPE_CHECKING, Self

from ._binary import find_binary
from ._command import (
    ServeOptions,
    child_environment,
    listen_on_port,
    listen_on_socket,
    serve_command,
)
from ._options import SHUTDOWN_GRACE, STARTUP_TIMEOUT, check_api_key, check_timeout, named_options
from ._process import ServerProcess
from ._socket_path import check_socket_path, private_directory, socket_in
from .errors import MlxcelConfigError, MlxcelServerError, MlxcelStateError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

    from ._health import Address

__all__ = ["ManagedServer"]

_PORT_ATTEMPTS = 5
_PORT_TAKEN = re.compile(r"\b(already|address) in use\b|EADDRINUSE|os error (98|48|10048)\b", re.IGNORECASE)


class ManagedServer:
    """Starts `mlxcel serve`, waits until it can answer, and ends it.

        with ManagedServer("mlxcel-tiny") as server:
            llm = LLM(socket=server.socket_path, api_key=server.api_key)

    Listens on a Unix socket in a private folder, or at `socket_path`; on TCP
    when `host` or `port` is given (a free port when `port` is None or 0) and
    on Windows. `binary` is looked for as `mlxcel._binary.find_binary` says.
    Without `api_key` the server gets a random one.

    `startup_timeout` is how many seconds a start may go without progress;
    `shutdown_grace` how many pass between SIGTERM and SIGKILL. `extra_args`
    are appended to the command line as they are.

    The server stops with `stop()`, at the end of a `with` block, when the
    object is collected and when Python exits, but only in the process that
    started it: a forked child leaves it alone.

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
    ) -> None:
        if isinstance(extra_args, str):
            raise MlxcelConfigError(f"extra_args is a list of arguments: write [{extra_args!r}]")
        tcp = host is not None or port is not None
        if tcp and socket_path is not None:
            raise MlxcelConfigError("a server listens on a socket or on host and port, not both: give one")
        if port is not None and not 0 <= port <= 65535:
            raise MlxcelConfigError(f"port is between 0 and 65535, not {port}")
        check_api_key(api_key)
        self._model = os.fspath(model)
        self._binary = binary
        self._tcp = tcp or sys.platform == "win32"
        self._host = host or "127.0.0.1"
        self._port = port or 0
        self._chosen_socket = None if socket_path is None else check_socket_path(socket_path)
        self._api_key = api_key or secrets.token_urlsafe(32)
        self._options = ServeOptions(alias, ctx_size, n_predict, n_parallel, warmup, tuple(extra_args))
        self._startup_timeout = check_timeout("startup_timeout", startup_timeout)
        self._shutdown_grace = check_timeout("shutdown_grace", shutdown_grace)

        self._lock = threading.Lock()
        self._aborted = threading.Event()
        self._process: ServerProcess | None = None
        self._finalizer: weakref.finalize[..., ManagedServer] | None = None
        self._address: Address | None = None
        self._served: tuple[str, ...] | None = None

    # -- what it is ---------------------------------------------------------

    @property
    def model(self) -> str:
        """The model argument the server was given."""
        return self._model

    @property
    def served_models(self) -> tuple[str, ...]:
        """Ids from `/v1/models`, known once the server is ready."""
        if self._served is None:
            raise MlxcelStateError("the server is not ready yet: call start() first")
        return self._served

    @property
    def api_key(self) -> str:
        """The Bearer key that every route except `/health` and `/` wants."""
        return self._api_key

    @property
    def pid(self) -> int | None:
        """The server's process id, or None when none was started."""
        return None if self._process is None else self._process.pid

    @property
    def socket_path(self) -> str | None:
        """The Unix socket, or None over TCP or before the start."""
        if self._address is None or self._address.socket_path is None:
            return None
        return str(self._address.socket_path)

    @property
    def base_url(self) -> str:
        """Address of the OpenAI routes, as `http://127.0.0.1:8080/v1`; reached over `socket_path` if set."""
        if self._address is None:
            raise MlxcelStateError("the server has no address yet: call start() first")
        return f"{self._address.root_url}/v1"

    @property
    def stderr_tail(self) -> str:
        """The last lines that the server wrote to stderr."""
        return "" if self._process is None else self._process.stderr_tail()

    def poll(self) -> int | None:
        """The server's exit status (negative for a signal), or None while it runs or was never started."""
        return None if self._process is None else self._process.poll()

    # -- its life -----------------------------------------------------------

    def start(self) -> Self:
        """Start the server and wait until it can answer. A running one is left as it is."""
        self.spawn()
        self.wait_ready()
        return self

    def spawn(self) -> None:
        """Start the process without waiting for it; `wait_ready` comes next."""
        with self._lock:
            if self._process is not None:
                if self._process.poll() is None:
                    return
                self._process.stop(self._shutdown_grace)  # it died: remove its files
            self._aborted.clear()
            self._served = None
            self._launch()

    def wait_ready(self) -> None:
        """Wait until the server can answer and is proven to be ours. On failure it is stopped."""
        if self._served is not None:
            return
        try:
            self._wait_ready()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the server: SIGTERM, SIGKILL after `shutdown_grace` seconds. Safe to call at any time."""
        self._aborted.set()
        process = self._process
        if process is not None:
            process.stop(self._shutdown_grace)
        self._served = None

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
        if self._process is None:
            state = "not started"
        elif (code := self._process.poll()) is not None:
            state = f"ended with {code}"
        else:
            state = f"pid {self._process.pid} at {self._address}"
        return f"<ManagedServer {self._model!r}: {state}>"

    # -- inside -------------------------------------------------------------

    def _launch(self) -> None:
        from ._health import Address

        binary = find_binary(self._binary)
        cleanup: Path | None = None
        if self._tcp:
            port = self._port or _free_port(self._host)
            address, listen = Address(host=self._host, port=port), listen_on_port(self._host, port)
        else:
            if self._chosen_socket is None:
                cleanup = private_directory()
                path = socket_in(cleanup)
            else:
                path = self._chosen_socket
                _refuse_live_socket(path)
            address, listen = Address(socket_path=path), listen_on_socket(path)
        process = ServerProcess(
            serve_command(binary, self._model, listen, self._options),
            child_environment(os.environ, self._api_key),
            secret=self._api_key,
            cleanup=cleanup,
        )
        # Holds the process, not the server object, which could otherwise never be collected.
        finalizer = weakref.finalize(self, process.stop, self._shutdown_grace)
        if self._finalizer is not None:
            self._finalizer.detach()
        self._process, self._finalizer, self._address = process, finalizer, address

    def _wait_ready(self) -> None:
        from ._health import Probe, wait_until_ready

        for attempt in range(_PORT_ATTEMPTS):
            process, address = self._process, self._address
            if process is None or address is None:
                raise MlxcelStateError("the server was not started: call start() first")
            try:
                models = wait_until_ready(
                    process,
                    Probe(address, self._api_key),
                    timeout=self._startup_timeout,
                    aborted=self._aborted,
                    address_is_ours=partial(self._is_ours, process),
                )
            except MlxcelServerError as error:
                last = attempt == _PORT_ATTEMPTS - 1 or self._aborted.is_set()
                if last or not self._lost_its_port(error):
                    raise
                with self._lock:
                    process.stop(self._shutdown_grace)
                    self._launch()
                continue
            if self._chosen_socket is not None:
                process.adopt_socket(self._chosen_socket)
            self._served = tuple(models)
            return

    def _is_ours(self, process: ServerProcess) -> bool:
        """A socket in our folder is ours, and so is an address that our child announced itself."""
        return not self._tcp or process.listening is not None

    def _lost_its_port(self, error: MlxcelServerError) -> bool:
        """A port that was free when we picked it can be taken before the server binds it."""
        picked = self._tcp and not self._port
        return picked and _PORT_TAKEN.search(error.stderr_tail) is not None


def _free_port(host: str) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _refuse_live_socket(path: Path) -> None:
    """An existing file is left to the server to judge, but never a socket that somebody answers on."""
    if not path.exists():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return
    raise MlxcelServerError(
        f"another server answers at {path}: connect to it with LLM(socket={str(path)!r}), "
        "or choose another path"
    )
