"""`generate` and `chat` of `AsyncLLM`: one prompt, a list of them, or an iterator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from ._async_answering import AsyncAnswering
from ._boundary import boundary
from ._generation import Generation
from ._many import Call, Many, is_message, is_token
from ._timeout import CLIENTS
from ._toolbox import with_tools_made

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from ._many import Sampling
    from ._requests import Conversations, Messages, Prompt, Prompts
    from ._structured import ResponseFormat
    from ._timeout import TimeoutArgument
    from .iterators import AsyncResultIterator
    from .results import Result

__all__ = ["AsyncAsking"]

T = TypeVar("T")


class AsyncAsking(AsyncAnswering):
    """Their signatures. What they do is in `AsyncAnswering`."""

    @overload
    async def generate(
        self,
        prompt: Prompt,
        *,
        response_format: type[T],
        model: str | None = None,
        timeout: TimeoutArgument = CLIENTS,
        **params: Any,
    ) -> Result[T]: ...

    @overload
    async def generate(
        self,
        prompt: Prompt,
        *,
        response_format: ResponseFormat | None = None,
        model: str | None = None,
        timeout: TimeoutArgument = CLIENTS,
        **params: Any,
    ) -> Result: ...

    @overload
    async def generate(
        self,
        prompt: Sequence[Prompt],
        *,
        response_format: type[T],
        model: str | None = None,
        timeout: TimeoutArgument = CLIENTS,
        sampling: Sampling | None = None,
        concurrency: int | None = None,
        return_exceptions: Literal[False] = False,
        progress: bool | None = None,
        **params: Any,
    ) -> list[Result[T]]: ...

    @overload
    async def generate(
        self,
        prompt: Sequence[Prompt],
        *,
        response_format: ResponseFormat | None = None,
        model: str | None = None,
        timeout: TimeoutArgument = CLIENTS,
        sampling: Sampling | None = None,
        concurrency: int | None = None,
        return_exceptions: Literal[False] = False,
        progress: bool | None = None,
        **params: Any,
    ) -> list[Result]: ...

    @overload
    async def generate(
        self,
        prompt: Sequence[Prompt],
        *,
        response_format: type[T],
        model: str | None = None,
        timeout: TimeoutArgument = CLIENTS,
        sampling: Sampling | None = None,
        concurrency: int | None = None,
        return_exceptions: bool,
        progress: bool | None = None,
        **params: Any,
    ) -> list[Result[T] | Exception]: ...

    @overload
    async def generate(
        self,
        prompt: Sequence[Prompt],
        *,
        response_format: ResponseFormat | None = None,
        model: str | None = None,
        timeout: TimeoutArgument = CLIENTS,
        sampling: Sampling | None = None,
        concurrency: int | None = None,
        return_exceptions: bool,
        progress: bool | None = None,
        **params: Any,
    ) -> list[Result | Exception]: ...

    @overload
    async def generate(
        self,
        prompt: Iterator[Prompt] | AsyncIterator[Prompt],
        *,
        response_format: type[T],
        model: str | None = None,
        timeout: TimeoutArgument = CLIENTS,
        sampling: Sampling | None = None,
        concurrency: int | None = None,
        return_exceptions: Literal[False] = False,
        progress: bool | None = None,
        **params: Any,
    ) -> AsyncResultIterator[Result[T]]: ...

    @overload
    async def generate(
        self,
        prompt: Iterator[Prompt] | AsyncIterator[Prompt],
        *,
        response_format: ResponseFormat | None = None,
        model: str | None = None,
        timeout: TimeoutArgument = CLIENTS,
        sampling: Sampling | None = None,
        concurrency: int | None = None,
        return_exceptions: Literal[False] = False,
        progress: bool | None = None,
        **params: Any,
    ) -> AsyncResultIterator[Result]: ...

    @overload
    async def generate(
        self,
        prompt: Iterator[Prompt] | AsyncIterator[Prompt],
        *,
        response_format: type[T],
        model: str | None = None,
        timeout: TimeoutArgument = CLIENTS,
        sampling: Sampling | None = None,
        concurrency: int | None = None,
        return_exceptions: bool,
        progress: bool | None = None,
        **params: Any,
    ) -> AsyncResultIterator[Result[T] | Exception]: ...

    @overload
    async def generate(
        self,
        prompt: Iterator[Prompt] | AsyncIterator[Prompt],
        *,
        response_format: ResponseFormat | None = None,
        model: str | None = None,
        timeout: TimeoutArgument = CLIENTS,
        sampling: Sampling | None = None,
        concurrency: int | None = None,
        return_exceptions: bool,
        progress: bool | None = None,
        **params: Any,
    ) -> AsyncResultIterator[Result | Exception]: ...

    @boundary
    async def generate(
        self,
        prompt: Prompt | Prompts,
        *,
        response_format: ResponseFormat | None = None,
        model: str | None = None,
        timeout: TimeoutArgument = CLIENTS,
        sampling: Sampling | None = None,
        concurrency: int | None = None,
        return_exceptions: bool = False,
        progress: bool | None = None,
        **params: Any,
    ) -> Result[Any] | list[Any] | AsyncResultIterator[Any]:
        """Continue a prompt (text, or token ids): `/v1/completions`.

        Of a list of prompts it gives a list of results in the same order, of an iterator an iterator that
        reads only a little ahead. Up to `concurrency` requests are under way at once (default: four
        times the server's slots). `sampling` has a dict of keywords for each prompt. A prompt that fails
        does not end the others: its exception takes its place with `return_exceptions`, else
        MlxcelBatchError is raised at the end (of an iterator: when its turn comes). `progress` draws a bar.
        """
        many = Many(sampling, concurrency, return_exceptions, progress)
        call = Call(Generation.completion, params, response_format, model, timeout)
        return await self._ask(prompt, is_token, call, many)

    @overload
    async def chat(
        self,
        messages: Messages,
        *,
        response_format: type[T],
        model: str | None = None,
        timeout: TimeoutArgument = CLIENTS,
        **params: Any,
    ) -> Result[T]: ...

    @overload
    async def chat(
        self,
        messages: Messages,
        *,
        response_format: ResponseFormat | None = None,
        model: str | None = None,
        timeout: TimeoutArgument = CLIENTS,
        **params: Any,
    ) -> Result: ...

    @overload
    async def chat(
        self,
        messages: Sequence[Messages],
        *,
        response_format: type[T],
        model: str | None = None,
        timeout: TimeoutArgument = CLIENTS,
        sampling: Sampling | None = None,
        concurrency: int | None = None,
        return_exceptions: Literal[False] = False,
        progress: bool | None = None,
        **params: Any,
    ) -> list[Result[T]]: ...

    @overload
    async def chat(
        self,
        messages: Sequence[Messages],
        *,
        response_format: ResponseFormat | None = None,
        model: str | None = None,
        timeout: TimeoutArgument = CLIENTS,
        sampling: Sampling | None = None,
        concurrency: int | None = None,
        return_exceptions: Literal[False] = False,
        progress: bool | None = None,
        **params: Any,
    ) -> list[Result]: ...

    @overload
    async def chat(
        self,
        messages: Sequence[Messages],
        *,
        response_format: type[T],
        model: str | None = None,
        timeout: TimeoutArgument = CLIENTS,
        sampling: Sampling | None = None,
        concurrency: int | None = None,
        return_exceptions: bool,
        progress: bool | None = None,
        **params: Any,
    ) -> list[Result[T] | Exception]: ...

    @overload
    async def chat(
        self,
        messages: Sequence[Messages],
        *,
        response_format: ResponseFormat | None = None,
        model: str | None = None,
        timeout: TimeoutArgument = CLIENTS,
        sampling: Sampling | None = None,
        concurrency: int | None = None,
        return_exceptions: bool,
        progress: bool | None = None,
        **params: Any,
    ) -> list[Result | Exception]: ...

    @overload
    async def chat(
        self,
        messages: Iterator[Messages] | AsyncIterator[Messages],
        *,
        response_format: type[T],
        model: str | None = None,
        timeout: TimeoutArgument = CLIENTS,
        sampling: Sampling | None = None,
        concurrency: int | None = None,
        return_exceptions: Literal[False] = False,
        progress: bool | None = None,
        **params: Any,
    ) -> AsyncResultIterator[Result[T]]: ...

    @overload
    async def chat(
        self,
        messages: Iterator[Messages] | AsyncIterator[Messages],
        *,
        response_format: ResponseFormat | None = None,
        model: str | None = None,
        timeout: TimeoutArgument = CLIENTS,
        sampling: Sampling | None = None,
        concurrency: int | None = None,
        return_exceptions: Literal[False] = False,
        progress: bool | None = None,
        **params: Any,
    ) -> AsyncResultIterator[Result]: ...

    @overload
    async def chat(
        self,
        messages: Iterator[Messages] | AsyncIterator[Messages],
        *,
        response_format: type[T],
        model: str | None = None,
        timeout: TimeoutArgument = CLIENTS,
        sampling: Sampling | None = None,
        concurrency: int | None = None,
        return_exceptions: bool,
        progress: bool | None = None,
        **params: Any,
    ) -> AsyncResultIterator[Result[T] | Exception]: ...

    @overload
    async def chat(
        self,
        messages: Iterator[Messages] | AsyncIterator[Messages],
        *,
        response_format: ResponseFormat | None = None,
        model: str | None = None,
        timeout: TimeoutArgument = CLIENTS,
        sampling: Sampling | None = None,
        concurrency: int | None = None,
        return_exceptions: bool,
        progress: bool | None = None,
        **params: Any,
    ) -> AsyncResultIterator[Result | Exception]: ...

    @boundary
    async def chat(
        self,
        messages: Messages | Conversations,
        *,
        response_format: ResponseFormat | None = None,
        model: str | None = None,
        timeout: TimeoutArgument = CLIENTS,
        sampling: Sampling | None = None,
        concurrency: int | None = None,
        return_exceptions: bool = False,
        progress: bool | None = None,
        **params: Any,
    ) -> Result[Any] | list[Any] | AsyncResultIterator[Any]:
        """Answer a conversation, or a string as the user's one message: `/v1/chat/completions`.

        A list of messages is one conversation; a list or an iterator of conversations or strings is many,
        see `generate`.
        """
        many = Many(sampling, concurrency, return_exceptions, progress)
        call = Call(self._chat, with_tools_made(params), response_format, model, timeout)
        return await self._ask(messages, is_message, call, many)
