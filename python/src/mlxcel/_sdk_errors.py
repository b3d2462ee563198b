"""Errors of a request that are ours and the OpenAI SDK's at once.

Code written for the SDK catches `openai.APITimeoutError`; a person new to it
writes `except TimeoutError`. Both get theirs. Apart from `errors`, because
this one has to import the SDK.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import openai

from .errors import MlxcelConnectionError, MlxcelTimeoutError

if TYPE_CHECKING:
    import httpx2

__all__ = ["RequestConnectionError", "RequestTimeoutError"]


class RequestTimeoutError(MlxcelTimeoutError, openai.APITimeoutError):
    """A limit of a call passed. The connection is closed, so the server has stopped working on it."""

    def __init__(
        self,
        message: str,
        *,
        limit: str | None = None,
        text: str = "",
        request: httpx2.Request | None = None,
    ) -> None:
        super().__init__(message, limit=limit, text=text)
        _as_the_sdk_s(self, message, request)


class RequestConnectionError(MlxcelConnectionError, openai.APIConnectionError):
    """Nobody answers at the address, or the connection broke before the answer was complete."""

    def __init__(self, message: str, *, text: str = "", request: httpx2.Request | None = None) -> None:
        super().__init__(message, text=text)
        _as_the_sdk_s(self, message, request)


def _as_the_sdk_s(error: openai.APIError, message: str, request: httpx2.Request | None) -> None:
    # Its own constructors would replace the message.
    error.message = message
    error.body = error.code = error.param = error.type = None
    if request is not None:
        error.request = request
