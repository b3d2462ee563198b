"""What can go wrong, as a tree; each class also is the builtin one would catch.

    MlxcelError
    ├── MlxcelConfigError (ValueError)            arguments that make no sense together
    ├── MlxcelCopyError (TypeError)               a client or server cannot be copied or pickled
    ├── MlxcelStateError (RuntimeError)           used after close, or before it is ready
    ├── MlxcelServerError                         the server did not start
    │   ├── MlxcelBinaryNotFoundError (FileNotFoundError)
    │   └── MlxcelServerCrashedError (ConnectionError)   it ended without being asked
    ├── MlxcelTimeoutError (TimeoutError)         a start that makes no progress
    └── MlxcelResponseError (ValueError)          an answer that cannot be read

A misspelt option is a plain `TypeError`. HTTP and API errors stay the
exceptions of the `openai` package (`openai.BadRequestError`,
`openai.APITimeoutError`, …).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "MlxcelBinaryNotFoundError",
    "MlxcelConfigError",
    "MlxcelCopyError",
    "MlxcelError",
    "MlxcelResponseError",
    "MlxcelServerCrashedError",
    "MlxcelServerError",
    "MlxcelStateError",
    "MlxcelTimeoutError",
]


class MlxcelError(Exception):
    """Base of every error that this package itself raises."""


class MlxcelConfigError(MlxcelError, ValueError):
    """Arguments that contradict each other or cannot be honoured; the message says what to write."""


class MlxcelStateError(MlxcelError, RuntimeError):
    """A call that does not fit the object's state, such as any after `close()`."""


class MlxcelServerError(MlxcelError):
    """The server process could not start, or ended while it started.

    `stderr_tail` holds the last lines that the server wrote to stderr (empty
    when it never ran); `exit_code` its exit status, negative for a signal, or
    None when it did not end by itself.
    """

    def __init__(self, message: str, *, stderr_tail: str = "", exit_code: int | None = None) -> None:
        super().__init__(message)
        self.stderr_tail = stderr_tail
        self.exit_code = exit_code


class MlxcelBinaryNotFoundError(MlxcelServerError, FileNotFoundError):
    """No usable `mlxcel` binary; `searched` lists every place looked at, in order."""

    def __init__(self, message: str, *, searched: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.searched = tuple(searched)


class MlxcelServerCrashedError(MlxcelServerError, ConnectionError):
    """The server that a request went to is gone; `restarting` says whether a new one is on its way."""

    def __init__(
        self,
        message: str,
        *,
        stderr_tail: str = "",
        exit_code: int | None = None,
        restarting: bool = False,
    ) -> None:
        super().__init__(message, stderr_tail=stderr_tail, exit_code=exit_code)
        self.restarting = restarting


class MlxcelTimeoutError(MlxcelError, TimeoutError):
    """The server made no progress towards ready within `startup_timeout` seconds."""

    def __init__(self, message: str, *, stderr_tail: str = "") -> None:
        super().__init__(message)
        self.stderr_tail = stderr_tail


class MlxcelResponseError(MlxcelError, ValueError):
    """A reply without what it must hold, a stream that ended early, or text that is not the JSON asked for.

    `text` is what the model had written so far, if anything.
    """

    def __init__(self, message: str, *, text: str = "") -> None:
        super().__init__(message)
        self.text = text


class MlxcelCopyError(MlxcelError, TypeError):
    """`copy` or `pickle` of an object that owns a server; the message says how to share the server."""
