"""A server process that is not our child: watched from outside, explained by what its keeper wrote."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from ._activity import Activity
from ._process import describe_exit
from .errors import MlxcelStateError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._share_place import Place, ShareRecord

__all__ = ["SharedProcess"]

_LAST_WORDS = 2.0  # seconds that a keeper gets to write how its server ended
_PAUSE = 0.01


class SharedProcess:
    """One process of a shared server, as one of its users sees it."""

    def __init__(self, place: Place, record: ShareRecord) -> None:
        self.record = record
        self.news = threading.Event()
        self._abandoned = False
        self._place = place
        self._ended: tuple[int | None, str] | None = None

    @property
    def pid(self) -> int:
        return self.record.pid

    @property
    def listening(self) -> None:
        """Its announcement goes to its keeper."""

    @property
    def announces(self) -> bool:
        """Not to us."""
        return False

    def call_at_exit(self, callback: Callable[[], None]) -> None:
        """Never called: a question to a server that ends is cut off with its socket."""

    def activity(self) -> Activity:
        """How much it has worked so far."""
        return Activity.of(self.pid, 0)

    def abandon(self) -> None:
        """Let whoever waits for it in this process give up: MlxcelStateError."""
        self._abandoned = True
        self.news.set()

    def poll(self) -> int | None:
        """None while it runs; else its exit status, 0 also where nobody knows it."""
        if self._abandoned:
            raise MlxcelStateError("the shared server was closed here while it was waited for")
        if self._ended is None:
            if self.record.alive:
                return None
            self._ended = self._last_words()
        return self._ended[0] or 0

    @property
    def exit_code(self) -> int | None:
        """The exit status; None while it runs, and where nobody knows it."""
        return None if self._ended is None else self._ended[0]

    def wait(self, timeout: float) -> int | None:
        """Like `poll`, but waits up to `timeout` seconds for the end."""
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self.news.wait(min(left, _PAUSE))
        return code

    def stderr_tail(self, *, final: bool = False) -> str:  # noqa: ARG002 - `poll` has waited for it
        """The last that the server wrote (stdout and stderr come through one pipe here)."""
        return self._place.log_tail() if self._ended is None else self._ended[1]

    @property
    def end(self) -> str:
        """How it ended, in words; empty until `poll` noticed."""
        if self._ended is None:
            return ""
        code = self._ended[0]
        if code is None:
            return "ended, and so did its keeper, which would have known how"
        return "ended as it was asked to" if code == 0 else describe_exit(code)

    def _last_words(self) -> tuple[int | None, str]:
        """A failure leaves word of itself, any other end removes the record."""
        deadline = time.monotonic() + _LAST_WORDS
        while True:
            failure = self._place.exit_of(self.pid)
            if failure is not None:
                return failure
            record = self._place.read()
            if record is None or record != self.record:
                return self._place.exit_of(self.pid) or (0, "")
            if time.monotonic() >= deadline:
                return None, self._place.log_tail()
            time.sleep(_PAUSE)
