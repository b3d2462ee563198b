"""What a client needs of a server that was started for it, whoever holds the process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ._state import ServerState
    from .errors import MlxcelServerCrashedError

__all__ = ["Server"]


class Server(Protocol):
    """A server with a process behind it: `ManagedServer`, or one that several processes share.

    A request reads `generation` first. When it then fails on its connection,
    `failure_since(generation)` tells whether the process it went to died, and
    `wait_available` waits for the next one.
    """

    @property
    def socket_path(self) -> str | None:
        """The Unix socket, or None over TCP or before the start."""
        ...

    @property
    def base_url(self) -> str:
        """Address of the OpenAI routes, ending in `/v1`."""
        ...

    @property
    def api_key(self) -> str:
        """The Bearer key."""
        ...

    @property
    def served_models(self) -> tuple[str, ...]:
        """Ids from `/v1/models`, known once the server is ready."""
        ...

    @property
    def pid(self) -> int | None:
        """The server's own process id."""
        ...

    @property
    def state(self) -> ServerState:
        """Where it is in its life."""
        ...

    @property
    def generation(self) -> int:
        """Goes up by one with every process that is started; 0 before the first."""
        ...

    def spawn(self) -> None:
        """Start the process without waiting until it can answer."""
        ...

    def wait_ready(self) -> None:
        """Wait until it can answer; on failure it is stopped and the error raised."""
        ...

    def wait_available(self, timeout: float | None = None) -> None:
        """Return at once when ready, wait while it starts or restarts.

        Raises MlxcelServerCrashedError when it was given up, MlxcelStateError when it
        is stopped, MlxcelTimeoutError after `timeout` seconds.
        """
        ...

    async def wait_available_async(self, timeout: float | None = None) -> None:
        """`wait_available` that lets the event loop run."""
        ...

    def failure_since(self, generation: int, wait: float = 1.0) -> MlxcelServerCrashedError | None:
        """How the process of that generation ended, or None if it runs.

        Waits up to `wait` seconds, because a broken connection can be noticed before the exit is.
        """
        ...

    def stop(self) -> None:
        """End it, or this user's part in it."""
        ...
