"""`stream` and `chat_stream` of `LLM`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from ._asking import Asking
from ._boundary import boundary
from ._generation import Generation
from ._timeout import CLIENTS
from .streams import EventStream, TextStream

if TYPE_CHECKING:
    from ._requests import Messages, Prompt
    from ._structured import ResponseFormat
    from ._timeout import TimeoutArgument

__all__ = ["Streaming"]

T = TypeVar("T")
StreamT = TypeVar("StreamT", TextStream[Any], EventStream[Any])


class Streaming(Asking):
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
    ) -> TextStream[T]: ...

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
    ) -> TextStream: ...

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
    ) -> EventStream[T]: ...

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
    ) -> EventStream: ...

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
    ) -> TextStream[Any] | EventStream[Any]:
        """Continue a prompt and get the text as it is written, or with `events` all that comes."""
        asked = Generation.completion(prompt, params, response_format)
        if events:
            return self._stream(asked, model, timeout, EventStream)
        return self._stream(asked, model, timeout, TextStream)

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
    ) -> TextStream[T]: ...

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
    ) -> TextStream: ...

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
    ) -> EventStream[T]: ...

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
    ) -> EventStream: ...

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
    ) -> TextStream[Any] | EventStream[Any]:
        """Answer a conversation and get the text as it is written, or with `events` all that comes."""
        asked = self._chat(messages, params, response_format)
        if events:
            return self._stream(asked, model, timeout, EventStream)
        return self._stream(asked, model, timeout, TextStream)
