"""Reads a child's output to its end, so that a full pipe can never stop it.

Every line goes to the logger `mlxcel.server`; the last ones are kept for the
error that may need them. Memory is bounded whatever the child writes.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections import deque
from typing import IO, TYPE_CHECKING

from ._fork import close_in_child

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Drain", "Tail", "logger"]

logger = logging.getLogger("mlxcel.server")

_TAIL_LINES = 200
_LINE_BYTES = 8192  # a longer line is cut into pieces of this size
_CHUNK_BYTES = 65536
_LINE_END = re.compile(rb"\r\n|\n|\r")


class Tail:
    """The last lines of a stream; one may take the lines of several, in the order they came."""

    def __init__(self, lines: int = _TAIL_LINES) -> None:
        self._lines: deque[str] = deque(maxlen=lines)
        self._lock = threading.Lock()

    def add(self, line: str) -> None:
        with self._lock:
            self._lines.append(line)

    def text(self) -> str:
        """The lines, without the final newline."""
        with self._lock:
            return "\n".join(self._lines)


class Drain:
    """One daemon thread that empties one pipe.

    `secret` is blotted out of every line before it is kept or logged;
    `on_line` sees each line on the reading thread.
    """

    def __init__(
        self,
        pipe: IO[bytes],
        *,
        name: str,
        secret: str = "",
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        self._pipe = pipe
        self._secret = secret
        self._on_line = on_line
        self._tail = Tail()
        self.bytes_read = 0
        close_in_child(pipe)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether every process that could write to the pipe has let go of it."""
        return not self._thread.is_alive()

    def tail(self) -> str:
        """The last lines, without the final newline."""
        return self._tail.text()

    def join(self, timeout: float) -> None:
        """Wait for the end of the pipe (a grandchild may keep it open, hence the timeout in seconds)."""
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)

    def _run(self) -> None:
        rest = b""
        with self._pipe as pipe:
            while chunk := os.read(pipe.fileno(), _CHUNK_BYTES):
                self.bytes_read += len(chunk)
                *lines, rest = _LINE_END.split(rest + chunk)
                for line in lines:
                    self._keep(line)
                while len(rest) > _LINE_BYTES:
                    self._keep(rest[:_LINE_BYTES])
                    rest = rest[_LINE_BYTES:]
            if rest:
                self._keep(rest)

    def _keep(self, raw: bytes) -> None:
        line = raw[:_LINE_BYTES].decode("utf-8", errors="replace").rstrip()
        if not line:
            return
        if self._secret and self._secret in line:
            line = line.replace(self._secret, "***")
        self._tail.add(line)
        if self._on_line is not None:
            self._on_line(line)
        logger.info("%s", line)
