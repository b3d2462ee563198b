"""The limits of one call while they run: a clock, no I/O.

Blocking code reads the deadline of the call it works for from `current`: every
wait on a socket of ours is cut at what is left (see `_connections`). Async
code puts a cancel scope around its waits instead.
"""

from __future__ import annotations

import time
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

    from ._timeout import Timeout

__all__ = ["Deadline", "DeadlinePassedError", "current"]

_SLACK = 0.005
"""Seconds by which a timer may strike early."""


class DeadlinePassedError(Exception):
    """A limit passed, or is sure to; turned into the error that the caller sees at the boundary."""

    def __init__(self, limit: str | None = None, why: str = "") -> None:
        super().__init__(why)
        self.limit = limit
        self.why = why


class Deadline:
    """Runs from its creation. Used as a context around each piece of waiting.

    Time that the caller spends between two pieces of a stream counts for
    `total` only: a slow reader is not a slow server.
    """

    __slots__ = ("_answering", "_left_at", "_token_at", "_tokens", "_total_at", "timeout")

    def __init__(self, timeout: Timeout) -> None:
        now = time.monotonic()
        self.timeout = timeout
        self._total_at = _after(now, timeout.total)
        self._token_at = _after(now, timeout.first_token)
        self._answering = False
        self._left_at = now
        self._tokens: list[Token[Deadline | None]] = []

    def left(self) -> float | None:
        """Seconds until the nearest limit, not below 0; None without any."""
        at = self._nearest()
        return None if at is None else max(at - time.monotonic(), 0.0)

    def token(self) -> None:
        """A piece of the answer came."""
        self._answering = True
        self._token_at = _after(time.monotonic(), self.timeout.between_tokens)

    def passed(self) -> str | None:
        """Name of the limit that has passed, as in `Timeout`."""
        left = self.left()
        return self._next_limit() if left is not None and left <= _SLACK else None

    def check(self) -> None:
        """Raise DeadlinePassedError when a limit has passed."""
        if self.left() == 0:
            raise DeadlinePassedError

    def pause(self, seconds: float) -> float:
        """A pause as long as asked, if the limits leave room for it; DeadlinePassedError if not."""
        left = self.left()
        if left is not None and seconds >= left:
            why = f"its queue is full: the server asks to wait {seconds:g} s, and {left:.1f} s are left"
            raise DeadlinePassedError(self._next_limit(), why)
        return seconds

    def __enter__(self) -> Self:
        now = time.monotonic()
        if self._answering:
            self._token_at = _after(now, self.timeout.between_tokens)
        elif self._token_at is not None:
            self._token_at += now - self._left_at
        self._tokens.append(current.set(self))
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._left_at = time.monotonic()
        current.reset(self._tokens.pop())

    def _next_limit(self) -> str:
        if self._token_at is not None and self._token_at == self._nearest():
            return "between_tokens" if self._answering else "first_token"
        return "total"

    def _nearest(self) -> float | None:
        if self._token_at is None or self._total_at is None:
            return self._token_at if self._total_at is None else self._total_at
        return min(self._token_at, self._total_at)


current: ContextVar[Deadline | None] = ContextVar("mlxcel-deadline", default=None)
"""The deadline of the blocking call that this thread works for."""


def _after(now: float, seconds: float | None) -> float | None:
    return None if seconds is None else now + seconds
