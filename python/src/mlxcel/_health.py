"""Waits until a starting server can answer, by the progress that it tells of itself."""

from __future__ import annotations

import errno
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ._probe import ANSWER_TIMEOUT
from ._process import describe_exit
from .errors import MlxcelServerError, MlxcelTimeoutError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from ._activity import Activity
    from ._probe import Probe

__all__ = ["Health", "Starting", "wait_until_ready"]

_SHORTEST_PAUSE = 0.002
_LONGEST_PAUSE = 0.05
_PAUSE_SHARE = 0.05  # of the time waited so far: polling adds at most this much to a start
_FIRST_PATIENCE = 0.25  # somebody else on the address may never answer
_LOOKS = 20  # at a silent process, in the time that it may go without progress


_OURS = (errno.EMFILE, errno.ENFILE)
"""What is this process's own trouble: waiting for the server would not help."""


class Starting(Protocol):
    """A process on its way to ready: a child of ours, or one that others started for all."""

    @property
    def news(self) -> threading.Event:
        """Set when there is reason to look at once."""
        ...

    @property
    def listening(self) -> str | None:
        """The address it announced itself."""
        ...

    @property
    def announces(self) -> bool:
        """Whether it does so before it answers, and we would hear it."""
        ...

    def call_at_exit(self, callback: Callable[[], None]) -> None:
        """Call back, from any thread, when it ends."""
        ...

    def poll(self) -> int | None:
        """Its exit status, or None while it runs."""
        ...

    def stderr_tail(self, *, final: bool = False) -> str:
        """The last that it wrote; `final`: it has ended, wait for its last words."""
        ...

    def activity(self) -> Activity:
        """How much it has worked so far."""
        ...


@dataclass(frozen=True, slots=True)
class Health:
    """One answer of `/health`, or the lack of one. Bytes are those of a download or of the weights."""

    ready: bool = False
    stage: str | None = None
    progress: float | None = None
    bytes_done: int | None = None
    bytes_total: int | None = None

    @classmethod
    def read(cls, status: int, body: object) -> Health:
        fields: dict[str, Any] = body if isinstance(body, dict) else {}
        stage = fields.get("stage")
        progress = _number(fields.get("progress"))
        done, total = _number(fields.get("bytes_done")), _number(fields.get("bytes_total"))
        return cls(
            ready=status == 200,
            stage=stage if isinstance(stage, str) else None,
            progress=None if progress is None else float(progress),
            bytes_done=None if done is None else int(done),
            bytes_total=None if total is None else int(total),
        )

    @property
    def tells(self) -> bool:
        """Whether the server said where it is. An older one says nothing until it is ready."""
        return self.stage is not None or self.progress is not None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def wait_until_ready(
    process: Starting,
    probe: Probe,
    *,
    timeout: float,
    private: bool,
    on_health: Callable[[Health], None] = lambda _: None,
) -> tuple[str, ...]:
    """Poll until the server can answer and is proven to be ours; returns the ids of the models it serves.

    `private` says that nobody else can listen at the address. `on_health` gets
    every answer that differs from the last one.

    Raises MlxcelServerError at once when the process ends, MlxcelTimeoutError
    when `timeout` seconds pass without progress. Progress is a change of what
    `/health` tells; for a server that tells nothing, work that its process does.
    """
    process.call_at_exit(probe.interrupt)
    clock = _Clock(process, timeout)
    patience = _FIRST_PATIENCE
    began = time.monotonic()
    while True:
        process.news.clear()
        if (code := process.poll()) is not None:
            raise _exited(process, code)
        health = Health()
        if process.listening is not None or not process.announces:
            try:
                health = Health.read(*probe.get("/health", timeout=min(clock.left(), patience)))
            except TimeoutError:
                patience = min(patience * 2, ANSWER_TIMEOUT)
            except OSError as error:
                if error.errno in _OURS:
                    raise _cannot_ask(process, error) from error
                # Else nobody listens yet.
        if health.ready:
            proven = private or process.listening is not None
            if (models := _served_models(process, probe, proven=proven)) is not None:
                return models
        if clock.advances(health):
            on_health(health)
        if clock.left() <= 0:
            raise _stuck(process, probe, clock.seen, timeout)
        process.news.wait(
            min(max((time.monotonic() - began) * _PAUSE_SHARE, _SHORTEST_PAUSE), _LONGEST_PAUSE)
        )


class _Clock:
    """Counts the time without progress."""

    def __init__(self, process: Starting, timeout: float) -> None:
        self._process = process
        self._timeout = timeout
        self._moved = self._looked = time.monotonic()
        self._activity = process.activity()
        self.seen = Health()

    def left(self) -> float:
        """Seconds until the start has to be given up."""
        return self._moved + self._timeout - time.monotonic()

    def advances(self, health: Health) -> bool:
        """Take note of an answer; True when it is news."""
        now = time.monotonic()
        if health.tells:
            if health == self.seen:
                return False
            self.seen = health
            self._moved = now
            return True
        # A server that told once and does not answer now is no older one: only its answers count.
        if not self.seen.tells and now - self._looked >= self._timeout / _LOOKS:
            self._looked = now
            activity = self._process.activity()
            if activity.advanced(self._activity, now - self._moved):
                self._activity, self._moved = activity, now
        return False


def _exited(process: Starting, code: int) -> MlxcelServerError:
    tail = process.stderr_tail(final=True)
    said = f":\n{tail}" if tail else " and wrote nothing to stderr"
    return MlxcelServerError(
        f"the mlxcel server {describe_exit(code)} while it started{said}", stderr_tail=tail, exit_code=code
    )


def _cannot_ask(process: Starting, error: OSError) -> MlxcelServerError:
    return MlxcelServerError(
        f"this process cannot ask the mlxcel server whether it is ready: {error.strerror}; "
        "close what it has open, or raise its limit (ulimit -n)",
        stderr_tail=process.stderr_tail(),
    )


def _served_models(process: Starting, probe: Probe, *, proven: bool) -> tuple[str, ...] | None:
    """Ids from `/v1/models`, which only a server with our key gives us; None to ask again.

    At an address that a stranger may hold, a server is ours if it refuses
    another key and takes ours. A stranger should not get ours to see, so the
    other one goes first.
    """
    why = ""
    try:
        if not proven:
            status, _ = probe.get("/v1/models", key="not-the-key")
            if status != 503 and status not in (401, 403):
                why = "takes any key"
        if not why:
            status, body = probe.get("/v1/models")
    except OSError:
        return None  # it went away in between: the next round finds out why
    if (code := process.poll()) is not None:
        raise _exited(process, code)
    if status == 503:
        return None
    if not why and status != 200:
        why = f"answered {status} to our key"
    if why:
        raise MlxcelServerError(
            f"what listens at {probe.address} is not the server that was started: it {why}; "
            "choose another address, or leave it out",
            stderr_tail=process.stderr_tail(),
        )
    entries = body.get("data") if isinstance(body, dict) else None
    return tuple(
        entry["id"]
        for entry in (entries if isinstance(entries, list) else [])
        if isinstance(entry, dict) and isinstance(entry.get("id"), str)
    )


def _stuck(process: Starting, probe: Probe, seen: Health, timeout: float) -> MlxcelTimeoutError:
    if not seen.tells:
        state = f"nothing answered at {probe.address}"
    else:
        done = "" if seen.progress is None else f" at {seen.progress:.0%}"
        state = f"it stayed in stage {seen.stage!r}{done}"
    tail = process.stderr_tail()
    said = f"\nIts last lines:\n{tail}" if tail else ""
    return MlxcelTimeoutError(
        f"the mlxcel server made no progress for {timeout:g} s while it started: {state}; "
        f"raise startup_timeout if it only needs longer{said}",
        stderr_tail=tail,
    )
