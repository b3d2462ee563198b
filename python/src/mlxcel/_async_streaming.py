"""`stream` and `chat_stream` of `AsyncLLM`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from ._async_asking import AsyncAsking
from ._boundary import boundary
from ._generation import Generation
from ._timeout import CLIENTS
from .streams import AsyncEventStream, AsyncTextStream

if TYPE_CHECKING:
    from ._requests import Messages, Prompt
    from ._structured import ResponseFormat
    from ._timeout import TimeoutArgument

__all__ = ["AsyncStreaming"]

T = TypeVar("T")
StreamT = TypeVar("StreamT", AsyncTextStream[Any], AsyncEventStream[Any])


class AsyncStreaming(AsyncAsking):
    """Their signatures, over the one stream that the client can open."""

    def _stream(
        self, asked: Generation, model: str | None, timeout: TimeoutArgument, kind: type[StreamT]
    ) -> StreamT:
        raise NotImplementedError

    @overload
    def stream(
        self,
        prompt: Prompt,
        *,
        events: Literal[False] = False,
        response_format: type[T],
        model: str | None = None,
        timeout: TimeoutArgument = CLIENTS,
        **params: Any,
    ) -> AsyncTextStream[T]: ...

    @overload
    def stream(
        self,
        prompt: Prompt,
        *,
        events: Literal[False] = False,
        response_format: ResponseFormat | None = None,
        model: str | None = None,
        timeout: TimeoutArgument = CLIENTS,
        **params: Any,
    ) -> AsyncTextStream: ...

    @overload
    def stream(
        self,
        prompt: Prompt,
        *,
        events: Literal[True],
        response_format: type[T],
        model: str | None = None,
        timeout: TimeoutArgument = CLIENTS,
        **params: Any,
    ) -> AsyncEventStream[T]: ...

    @overload
    def stream(
        self,
        prompt: Prompt,
        *,
        events: Literal[True],
        response_format: ResponseFormat | None = None,
        model: str | None = None,
        timeout: TimeoutArgument = CLIENTS,
        **params: Any,
    ) -> AsyncEventStream: ...

    @boundary
    def stream(
        self,
        prompt: Prompt,
        *,
        events: bool = False,
        response_format: ResponseFormat | None = None,
        model: str | None = None,
        timeout: TimeoutArgument = CLIENTS,
        **params: Any,
    ) -> AsyncTextStream[Any] | AsyncEventStream[Any]:
        """Continue a prompt and get the text as it is written, or with `events` all that comes."""
        asked = Generation.completion(prompt, params, response_format)
        if events:
            return self._stream(asked, model, timeout, AsyncEventStream)
        return self._stream(asked, model, timeout, AsyncTextStream)

    @overload
    def chat_stream(
        self,
        messages: Messages,
        *,
        events: Literal[False] = False,
        response_format: type[T],
        model: str | None = None,
        timeout: TimeoutArgument = CLIENTS,
        **params: Any,
    ) -> AsyncTextStream[T]: ...

    @overload
    def chat_stream(
        self,
        messages: Messages,
        *,
        events: Literal[False] = False,
        response_format: ResponseFormat | None = None,
        model: str | None = None,
        timeout: TimeoutArgument = CLIENTS,
        **params: Any,
    ) -> AsyncTextStream: ...

    @overload
    def chat_stream(
        self,
        messages: Messages,
        *,
        events: Literal[True],
        response_format: type[T],
        model: str | None = None,
        timeout: TimeoutArgument = CLIENTS,
        **params: Any,
    ) -> AsyncEventStream[T]: ...

    @overload
    def chat_stream(
        self,
        messages: Messages,
        *,
        events: Literal[True],
        response_format: ResponseFormat | None = None,
        model: str | None = None,
        timeout: TimeoutArgument = CLIENTS,
        **params: Any,
    ) -> AsyncEventStream: ...

    @boundary
    def chat_stream(
        self,
        messages: Messages,
        *,
        events: bool = False,
        response_format: ResponseFormat | None = None,
        model: str | None = None,
        timeout: TimeoutArgument = CLIENTS,
        **params: Any,
    ) -> AsyncTextStream[Any] | AsyncEventStream[Any]:
        """Answer a conversation and get the text as it is written, or with `events` all that comes."""
        asked = self._chat(messages, params, response_format)
        if events:
            return self._stream(asked, model, timeout, AsyncEventStream)
        return self._stream(asked, model, timeout, AsyncTextStream)
