"""What can go wrong, as a tree; each class also is the builtin one would catch.

    MlxcelError
    ├── MlxcelConfigError (ValueError)            arguments that make no sense together
    ├── MlxcelCopyError (TypeError)               a client or server cannot be copied or pickled
    ├── MlxcelStateError (RuntimeError)           used after close, or before it is ready
    ├── MlxcelServerError                         the server did not start
    │   ├── MlxcelBinaryNotFoundError (FileNotFoundError)
    │   └── MlxcelServerCrashedError (ConnectionError)   it died while it had the request
    ├── MlxcelConnectionError (ConnectionError)   nobody answers, or the connection broke
    ├── MlxcelTimeoutError (TimeoutError)         a limit passed, of a start or of a call
    ├── MlxcelResponseError (ValueError)          an answer that cannot be read
    │   ├── MlxcelFormatError                     it is not what response_format asked for
    │   │   ├── MlxcelTruncatedError              it was cut off before it was whole
    │   │   └── MlxcelRefusalError                the model refused
    │   └── MlxcelToolArgumentsError              a tool call that cannot be executed as written
    ├── MlxcelToolStepsError (RuntimeError)       run_tools used up its steps
    │   └── MlxcelToolArgumentsError              a tool call whose arguments are no JSON object
    ├── MlxcelBatchError                          one of many prompts failed
    ├── MlxcelModelNotServedError (LookupError)   the server has no such model
    └── MlxcelUnsupportedError (NotImplementedError)   the server has no such route

A misspelt option is a plain `TypeError`. An answer with an HTTP error status
stays the exception of the `openai` package (`openai.BadRequestError`,
`openai.RateLimitError`, …). The timeout and the connection error of a request
also are `openai.APITimeoutError` and `openai.APIConnectionError`, so that code
written for the SDK keeps working: see `mlxcel._sdk_errors`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .results import Result
    from .tools import ToolRun

__all__ = [
    "MlxcelBatchError",
    "MlxcelBinaryNotFoundError",
    "MlxcelConfigError",
    "MlxcelConnectionError",
    "MlxcelCopyError",
    "MlxcelError",
    "MlxcelFormatError",
    "MlxcelModelNotServedError",
    "MlxcelRefusalError",
    "MlxcelResponseError",
    "MlxcelServerCrashedError",
    "MlxcelServerError",
    "MlxcelStateError",
    "MlxcelTimeoutError",
    "MlxcelToolArgumentsError",
    "MlxcelToolStepsError",
    "MlxcelTruncatedError",
    "MlxcelUnsupportedError",
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
    """The server died while it had the request, or for good.

    `restarting` tells whether a new one is being started, so that sending the
    request again makes sense. `text` is what the model had written so far.
    """

    text: str = ""

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


class MlxcelConnectionError(MlxcelError, ConnectionError):
    """Nobody answers at the address, or the connection broke before the answer was complete.

    `text` is what the model had written so far, if anything.
    """

    def __init__(self, message: str, *, text: str = "") -> None:
        super().__init__(message)
        self.text = text


class MlxcelTimeoutError(MlxcelError, TimeoutError):
    """A limit passed: `startup_timeout` without progress of a start, or a limit of a call.

    `limit` names the one of `Timeout` (`"connect"`, `"first_token"`,
    `"between_tokens"`, `"total"`), or is None. `text` is what the model had
    written so far.
    """

    def __init__(
        self, message: str, *, stderr_tail: str = "", limit: str | None = None, text: str = ""
    ) -> None:
        super().__init__(message)
        self.stderr_tail = stderr_tail
        self.limit = limit
        self.text = text


class MlxcelResponseError(MlxcelError, ValueError):
    """A reply without what it must hold, a stream that ended early, or text that is not the JSON asked for.

    `text` is what the model had written so far, if anything.
    """

    def __init__(self, message: str, *, text: str = "") -> None:
        super().__init__(message)
        self.text = text


class MlxcelFormatError(MlxcelResponseError):
    """The answer is not what `response_format` asked for.

    `text` is what the model wrote. `reason` says what is wrong: `"not_json"` (the server ignored the
    format), `"mismatch"` (JSON of another form), `"tool_calls"` (the model called a tool instead), and those
    of the classes below. `result` is the whole `Result` with all its choices, also those that are right.
    """

    result: Result | None = None

    def __init__(self, message: str, *, text: str = "", reason: str = "") -> None:
        super().__init__(message, text=text)
        self.reason = reason


class MlxcelTruncatedError(MlxcelFormatError):
    """The answer ended before it was whole.

    `reason` is the server's `finish_reason`, such as `"length"`. `partial` is what of the answer can be
    read, as the partial objects of a stream are, or None.
    """

    def __init__(self, message: str, *, text: str = "", reason: str = "", partial: object = None) -> None:
        super().__init__(message, text=text, reason=reason)
        self.partial = partial


class MlxcelRefusalError(MlxcelFormatError):
    """The model refused to answer; `text` is what it said, and `reason` is `"refusal"`."""


class MlxcelToolArgumentsError(MlxcelResponseError):
    """The arguments of a tool call are not a JSON object, or not what the function takes; or there is none
    of that name.

    `raw` is what the model wrote for them, `name` and `id` are those of the call. From `run_tools`, `run` is
    the run so far.
    """

    run: ToolRun | None = None

    def __init__(self, message: str, *, raw: str = "", name: str = "", id: str = "") -> None:  # noqa: A002
        super().__init__(message, text=raw)
        self.raw = raw
        self.name = name
        self.id = id


class MlxcelToolStepsError(MlxcelError, RuntimeError):
    """`run_tools` used up its `max_steps`, and the model still calls tools; `run` is the run so far.

    The calls of the last answer were not executed.
    """

    def __init__(self, message: str, *, run: ToolRun | None = None) -> None:
        super().__init__(message)
        self.run = run


class MlxcelBatchError(MlxcelError):
    """One of many prompts failed; its own error is the `__cause__`.

    `index` is that of the first prompt that failed, from 0. `results` has, in the order of the prompts,
    what came of each: its `Result`, its exception, or None where it was not asked any more because nobody
    could answer. It is empty for an iterator of prompts, whose earlier results were given out already.
    """

    def __init__(
        self, message: str, *, index: int = 0, results: Sequence[Result | Exception | None] = ()
    ) -> None:
        super().__init__(message)
        self.index = index
        self.results = list(results)


class MlxcelModelNotServedError(MlxcelError, LookupError):
    """The server serves no model of that name; `served` lists those it does."""

    def __init__(self, message: str, *, served: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.served = tuple(served)


class MlxcelUnsupportedError(MlxcelError, NotImplementedError):
    """The server has no such route: it is another one than ours, or an older one."""


class MlxcelCopyError(MlxcelError, TypeError):
    """`copy` or `pickle` of an object that owns a server; the message says how to share the server."""
