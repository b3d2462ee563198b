"""The states of a server, and the rules by which one that died is started again: data, no I/O."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum

from .errors import MlxcelConfigError

__all__ = ["Attempts", "Restart", "ServerState", "StateChange"]


_MOST_DOUBLINGS = 64  # far past any cap, and short of what a float can hold


class ServerState(StrEnum):
    """Where a server is in its life."""

    STARTING = "starting"
    """The process is spawned; nothing answers yet."""
    LOADING = "loading"
    """It answers, and tells how far the model is."""
    READY = "ready"
    """Requests are answered."""
    CRASHED = "crashed"
    """It ended without being asked. The last state of one that is not started again."""
    RESTARTING = "restarting"
    """A new process follows, after a pause if the last one crashed."""
    STOPPED = "stopped"
    """Never started, or ended because it was asked to."""


@dataclass(frozen=True, slots=True)
class StateChange:
    """What an `on_state` callback gets."""

    old: ServerState
    new: ServerState
    pid: int | None = None
    """The process it is about; None when there is none."""
    detail: str = ""
    """Why, in words for a person: how it ended, how long the pause is."""
    error: Exception | None = None
    """The error that a caller gets because of it."""
    at: float = field(default_factory=time.time)
    """When, as `time.time()`."""


@dataclass(frozen=True, slots=True)
class Restart:
    """How often and how fast a server that died is started again.

    At most `limit` times within `window` seconds, and at most `limit` times in
    a row without having been ready for `stable` seconds in between (a model
    that takes longer to load than `window` would else crash for ever). The
    pause before a start is `backoff` seconds, doubled each time up to
    `max_backoff`, and `backoff` again after a stable time: a hard end can strand
    wired GPU memory, and a quick loop of them all of it.
    """

    limit: int = 3
    window: float = 60.0
    stable: float = 10.0
    backoff: float = 0.5
    max_backoff: float = 30.0

    def __post_init__(self) -> None:
        if type(self.limit) is not int or self.limit < 1:
            raise MlxcelConfigError(
                f"Restart.limit is a whole number above 0, not {self.limit!r}; "
                "restart=None turns restarts off"
            )
        for name in ("window", "stable", "backoff", "max_backoff"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not value > 0:
                raise MlxcelConfigError(f"Restart.{name} is a number of seconds above 0, not {value!r}")


class Attempts:
    """Counts the restarts of one server against a `Restart`. Times are those of one monotonic clock."""

    def __init__(self, rules: Restart) -> None:
        self._rules = rules
        self._recent: deque[float] = deque()
        self._in_a_row = 0

    def pause(self, now: float, ready_for: float) -> float | None:
        """Seconds to wait before the next start, or None to give up.

        `ready_for` is how long the process that died could answer, 0 when it never could.
        """
        rules = self._rules
        if ready_for >= rules.stable:
            self._in_a_row = 0
        while self._recent and now - self._recent[0] >= rules.window:
            self._recent.popleft()
        if len(self._recent) >= rules.limit or self._in_a_row >= rules.limit:
            return None
        pause = min(rules.backoff * 2.0 ** min(self._in_a_row, _MOST_DOUBLINGS), rules.max_backoff)
        self._recent.append(now)
        self._in_a_row += 1
        return pause
