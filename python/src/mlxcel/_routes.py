"""What it means that another server lacks one of our routes. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from .errors import MlxcelResponseError, MlxcelUnsupportedError

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["NativeRoute", "keeps_no_list", "leaves_model_unchecked"]

_NO_SUCH_ROUTE = (404, 405, 501)


class NativeRoute:
    """Around a request to a route, for when only servers of our kind have it."""

    __slots__ = ("_native", "_route", "_where")

    def __init__(self, route: str, where: str, *, native: bool = True) -> None:
        self._native = native
        self._route = route
        self._where = where

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._native and exc is not None and _is_missing(exc):
            raise MlxcelUnsupportedError(
                f"the server at {self._where} has no {self._route}: that is a native route of "
                "`mlxcel serve` and not part of the OpenAI API"
            ) from exc


def keeps_no_list(error: Exception) -> bool:
    """Whether a failed request for `/v1/models` means that the server has no list that could be read."""
    return _is_missing(error) or isinstance(error, MlxcelResponseError | json.JSONDecodeError)


def leaves_model_unchecked(error: Exception) -> bool:
    """Whether to send a request all the same after `/v1/models` failed: it will fail too, or it will not."""
    import openai

    return isinstance(error, openai.APIStatusError) or keeps_no_list(error)


def _is_missing(error: BaseException) -> bool:
    import openai

    return isinstance(error, openai.APIStatusError) and error.status_code in _NO_SUCH_ROUTE
