"""One user's part in a shared server: the process it knows, and the lease it holds on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._binary import find_binary, knows
from ._lease import Lease
from ._share_spec import ShareSpec
from .errors import MlxcelConfigError, MlxcelServerError, MlxcelStateError, MlxcelTimeoutError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from ._command import ServeOptions
    from ._health import Health
    from ._probe import Probe
    from ._share_place import Place
    from ._share_process import SharedProcess

__all__ = ["Member"]

_FLAG = b"exit-when-idle"
_LOCK_SECONDS = 60.0  # the lock is held to start a process, not while it loads
_REMEMBERED = 64


class Member:
    """Joins, starts and leaves; from one thread at a time."""

    def __init__(
        self,
        model: str,
        binary: str | os.PathLike[str] | None,
        options: ServeOptions,
        *,
        startup_timeout: float,
        idle_timeout: float,
    ) -> None:
        self._model = model
        self._binary = binary
        self._options = options
        self._startup_timeout = startup_timeout
        self._idle_timeout = idle_timeout
        # The first spec stays: a client's address must not change when a file is touched.
        self._spec: ShareSpec | None = None
        self._place: Place | None = None
        self._ends: dict[int, tuple[str, str, int | None]] = {}
        self.key: str | None = None
        self.process: SharedProcess | None = None
        self.lease: Lease | None = None
        self.served: tuple[str, ...] | None = None
        self.generation = 0

    @property
    def place(self) -> Place:
        """Where the server's files are; known once it was entered."""
        if self._place is None:
            raise MlxcelStateError("the shared server has no address yet: call start() first")
        return self._place

    @property
    def has_lease(self) -> bool:
        """Whether this process (not a parent that forked it) holds the server."""
        return self.lease is not None and self.lease.held

    def enter(self) -> SharedProcess:
        """Join the process that serves the spec, or start one, under the lock."""
        from ._share_place import Place, shared_key
        from ._share_process import SharedProcess
        from ._share_start import launch

        binary = find_binary(self._binary)
        if not knows(binary, _FLAG):
            raise MlxcelConfigError(
                f"the server binary {binary} cannot be shared: it has no --exit-when-idle, so nobody would "
                "ever end it; leave share=True out, or use a newer binary"
            )
        if self._spec is None:
            self._spec = ShareSpec.of(self._model, binary, self._options)
        place = self._place = Place(self._spec.digest)
        self.key = shared_key()
        with place.locked(_LOCK_SECONDS) as lock:
            record = place.read()
            if record is None or not record.alive or record.spec != self._spec.text:
                record = launch(
                    place,
                    lock,
                    spec=self._spec,
                    binary=binary,
                    options=self._options,
                    idle_timeout=self._idle_timeout,
                    key=self.key,
                )
        if self.process is None or self.process.record != record:
            self.generation += 1
            self.process = SharedProcess(place, record)
        return self.process

    def settle(self, process: SharedProcess, on_health: Callable[[Health], None]) -> None:
        """Wait until the process can answer, and take a lease on it.

        Raises MlxcelServerError when it ends or refuses, OSError when it goes away meanwhile.
        """
        from ._health import wait_until_ready
        from ._probe import Address, Probe

        if self.key is None:
            raise MlxcelStateError("the shared server was not entered yet")
        socket = self.place.socket
        probe = Probe(Address(socket_path=socket), self.key)
        try:
            self.served = wait_until_ready(
                process, probe, timeout=self._startup_timeout, private=True, on_health=on_health
            )
        except MlxcelTimeoutError as error:
            raise MlxcelTimeoutError(
                f"{error}\nIt is shared, so it was left running; "
                f"`python -m mlxcel stop {process.pid}` ends it",
                stderr_tail=error.stderr_tail,
            ) from None
        _check_pid(probe, process.pid)
        if not self.has_lease:
            self.lease = Lease(str(socket), self.key)

    def end_of(self, generation: int) -> tuple[str, str, int | None] | None:
        """How the process of a generation ended, its last output and exit status; None while it runs."""
        process = self.process
        if generation == self.generation and process is not None and process.poll() is not None:
            self._ends[generation] = (process.end, process.stderr_tail(), process.exit_code)
            while len(self._ends) > _REMEMBERED:
                del self._ends[min(self._ends)]
        if generation in self._ends:
            return self._ends[generation]
        return ("ended", "", None) if generation < self.generation else None

    def is_replaced(self) -> bool:
        """Whether another process serves already."""
        record = self.place.read()
        return record is not None and record.alive and (self.process is None or record != self.process.record)

    def props(self) -> object:
        """`/props` of the server, asked now."""
        from ._probe import Address, Probe

        if self.key is None:
            raise MlxcelStateError("the shared server was not entered yet")
        try:
            return Probe(Address(socket_path=self.place.socket), self.key).get("/props")[1]
        except OSError as error:
            raise MlxcelTimeoutError(f"the shared server does not answer: {error}") from error

    def leave(self) -> None:
        """Give the lease back and forget the process."""
        if self.lease is not None:
            self.lease.close()
        self.lease = self.served = self.process = None


def _check_pid(probe: Probe, pid: int) -> None:
    """What answers at the socket must be the process on record."""
    status, body = probe.get("/props")
    said = body.get("pid") if status == 200 and isinstance(body, dict) else None
    if said is not None and said != pid:
        raise MlxcelServerError(
            f"the shared server on record is process {pid}, but process {said} answers at {probe.address}: "
            f"`python -m mlxcel ps` shows both; end one"
        )
