"""Where errors leave the package: each as one line of ours under the caller's own code.

`explained` turns what the SDK and the HTTP library raise into the errors of
`errors`; `boundary` takes the frames off that lie below a public method. What
is cut off goes to the logger `mlxcel.client` at debug level.
"""

from __future__ import annotations

import functools
import inspect
import json
import logging
import sys
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ._deadline import DeadlinePassedError
from .errors import MlxcelConnectionError, MlxcelError, MlxcelResponseError, MlxcelTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from ._deadline import Deadline

__all__ = ["Explained", "boundary"]

_logger = logging.getLogger("mlxcel.client")
_PACKAGE = __name__.rpartition(".")[0]

F = TypeVar("F", bound="Callable[..., Any]")


def boundary(function: F) -> F:
    """Make a public method, blocking or a coroutine, the last frame of a traceback."""
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            try:
                return await function(*args, **kwargs)
            except Exception as error:
                _cut(error)
                raise

        return cast("F", awaited)

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            _cut(error)
            raise

    return cast("F", called)


def _cut(error: Exception) -> None:
    if not _is_meant_for_the_caller(error):
        return  # a bug: all frames are needed
    _logger.debug("a call failed", exc_info=error)
    for link in _chain(error):
        link.__traceback__ = None


def _is_meant_for_the_caller(error: Exception) -> bool:
    if isinstance(error, MlxcelError):
        return True
    openai = sys.modules.get("openai")
    if openai is not None and isinstance(error, openai.OpenAIError):
        return True
    return isinstance(error, TypeError | ValueError) and _raised_here(error.__traceback__)


def _raised_here(traceback: TracebackType | None) -> bool:
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    name = "" if traceback is None else str(traceback.tb_frame.f_globals.get("__name__"))
    return name.startswith(f"{_PACKAGE}.")


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__


class Explained:
    """Around a piece of a call: its errors come out as those of `errors`."""

    __slots__ = ("_deadline", "_text", "_where")

    def __init__(self, deadline: Deadline, where: str, text: Callable[[], str] = str) -> None:
        self._deadline = deadline
        self._where = where
        self._text = text

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(exc, Exception):
            shown = _explain(exc, self._deadline, self._where, self._text())
            if shown is not exc:
                raise shown from _cause_of(exc)


def _explain(error: Exception, deadline: Deadline, where: str, text: str) -> Exception:
    import httpx2
    import openai

    if isinstance(error, MlxcelError):
        if isinstance(error, MlxcelTimeoutError) and error.limit is None and deadline.passed():
            return _timed_out(error, deadline, where, text)  # while waiting for a restart
        if text and getattr(error, "text", None) == "":
            error.text = text  # type: ignore[attr-defined]
        return error
    if isinstance(error, DeadlinePassedError | httpx2.TimeoutException | openai.APITimeoutError):
        return _timed_out(error, deadline, where, text)
    if isinstance(error, httpx2.RequestError | openai.APIConnectionError):
        return _unreachable(error, where, text)
    if isinstance(error, json.JSONDecodeError):
        # The SDK lets a body that is not the JSON it claims to be escape as it is.
        return MlxcelResponseError(
            f"the reply of {where} is not JSON: {error}", text=text or error.doc[:1000]
        )
    return error


def _cause_of(error: Exception) -> BaseException | None:
    """What is worth showing below ours: the library's error rather than the SDK's wrapping of it."""
    import openai

    if isinstance(error, DeadlinePassedError):
        return error.__context__  # the refusal that would have been waited out
    if isinstance(error, openai.APIConnectionError) and error.__cause__ is not None:
        return error.__cause__
    return error


_LIMITS = {
    "connect": "it could not be reached within {seconds:g} s (Timeout.connect)",
    "first_token": "no answer began within {seconds:g} s (Timeout.first_token)",
    "between_tokens": "the answer stood still for {seconds:g} s (Timeout.between_tokens)",
    "total": "the call took longer than {seconds:g} s (timeout, or Timeout.total)",
}


def _timed_out(error: Exception, deadline: Deadline, where: str, text: str) -> Exception:
    import httpx2

    from ._sdk_errors import RequestTimeoutError

    limit = error.limit if isinstance(error, DeadlinePassedError) else None
    limit = limit or deadline.passed()
    if limit is None and any(isinstance(link, httpx2.ConnectTimeout) for link in _chain(error)):
        limit = "connect"
    seconds = None if limit is None else getattr(deadline.timeout, limit)
    what = "it did not answer in time" if seconds is None else _LIMITS[str(limit)].format(seconds=seconds)
    if isinstance(error, DeadlinePassedError) and error.why:
        what = f"{error.why} of the {seconds:g} s (Timeout.{limit})"
    return RequestTimeoutError(
        f"{where}: {what}. The request was given up and is not sent again; raise the limit if it "
        "only needs longer",
        limit=limit,
        text=text,
        request=_request_of(error),
    )


def _unreachable(error: Exception, where: str, text: str) -> MlxcelConnectionError:
    import httpx2

    from ._sdk_errors import RequestConnectionError

    reason = next((str(link) for link in _chain(error) if isinstance(link, httpx2.RequestError)), str(error))
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        message = (
            f"the certificate of {where} is not trusted: {reason}; "
            "name its authority with verify='/path/to/ca.pem'"
        )
    elif any(isinstance(link, httpx2.ConnectError) for link in _chain(error)):
        message = (
            f"no server answers at {where}: {reason}; start one (`mlxcel serve`, or LLM('mlxcel-tiny')), "
            "or correct the address"
        )
    else:
        message = (
            f"the connection to {where} broke before the answer was complete: {reason}; "
            "look into the server's log for why"
        )
    return RequestConnectionError(message, text=text, request=_request_of(error))


def _request_of(error: BaseException) -> Any:
    for link in _chain(error):
        try:
            request = getattr(link, "request", None)
        except RuntimeError:  # httpx2's property, when it was never set
            continue
        if request is not None:
            return request
    return None
