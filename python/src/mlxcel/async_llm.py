"""`AsyncLLM`: the same as `LLM`, for asyncio (and trio, as far as the SDK goes)."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Self

from . import _requests, _responses
from ._accumulate import Accumulator
from ._client import ClientBase
from .errors import MlxcelStateError
from .streams import AsyncTextStream

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    import httpx2
    from openai import AsyncOpenAI, AsyncStream
    from openai.types import Model

    from ._requests import Messages, Prompt
    from ._sdk import AsyncLocalOpenAI
    from .results import Result
    from .server import ManagedServer

__all__ = ["AsyncLLM"]

_STOP_INTERVAL = 0.05


class AsyncLLM(ClientBase["httpx2.AsyncBaseTransport", "httpx2.AsyncClient"]):
    """A language model to talk to from async code; options and methods are those of `LLM`.

        async with AsyncLLM("mlxcel-tiny") as llm:
            print(await llm.chat("What is 17 + 25?"))

    The constructor starts nothing: the server starts at `async with`, at
    `await llm.ready()` or at the first request, in a thread, so that the loop
    never waits. One object may live through several event loops. Cancelling
    the wait for a start does not stop it, since others may wait too; `close`
    does.
    """

    _client: AsyncLocalOpenAI | None = None
    _http: httpx2.AsyncClient | None = None

    def _begin(self) -> None:
        self._opening: Future[AsyncLocalOpenAI] | None = None
        self._lock = threading.Lock()

    async def ready(self) -> Self:
        """Wait until requests can be answered: the server is up and its model known."""
        await self._opened()
        await self._known_model()
        return self

    @property
    def model(self) -> str:
        """Id of the served model that requests go to; known after `await llm.ready()` or a request."""
        if self._model_id is None:
            raise MlxcelStateError("the model is not known yet: await llm.ready() first")
        return self._model_id

    @property
    def openai_client(self) -> AsyncOpenAI:
        """The OpenAI SDK's client on this server, for everything that is not wrapped here."""
        self._check_open()
        if self._client is None:
            if self._server is not None:
                raise MlxcelStateError("the server was not started yet: await llm.ready() first")
            return self._open()
        return self._client

    async def generate(self, prompt: Prompt, *, model: str | None = None, **params: Any) -> Result:
        """Continue a prompt (text, or token ids): `/v1/completions`."""
        client = await self._opened()
        model = model or await self._known_model()
        with _responses.readable():
            reply = await client.completions.create(
                **_requests.completion(prompt, model, params, stream=False)
            )
        return _responses.completion(reply, is_json=_responses.wants_json(params))

    def stream(self, prompt: Prompt, *, model: str | None = None, **params: Any) -> AsyncTextStream:
        """Continue a prompt and get the text as it is written."""

        async def source() -> AsyncStream[Any]:
            client = await self._opened()
            served = model or await self._known_model()
            return await client.completions.create(  # type: ignore[no-any-return]
                **_requests.completion(prompt, served, params, stream=True)
            )

        return AsyncTextStream(source, Accumulator(is_json=_responses.wants_json(params)))

    async def chat(self, messages: Messages, *, model: str | None = None, **params: Any) -> Result:
        """Answer a conversation, or a string as the user's one message: `/v1/chat/completions`."""
        client = await self._opened()
        model = model or await self._known_model()
        with _responses.readable():
            reply = await client.chat.completions.create(
                **_requests.chat(messages, model, params, stream=False)
            )
        return _responses.chat(reply, is_json=_responses.wants_json(params))

    def chat_stream(self, messages: Messages, *, model: str | None = None, **params: Any) -> AsyncTextStream:
        """Answer a conversation and get the text as it is written."""

        async def source() -> AsyncStream[Any]:
            client = await self._opened()
            served = model or await self._known_model()
            return await client.chat.completions.create(  # type: ignore[no-any-return]
                **_requests.chat(messages, served, params, stream=True)
            )

        return AsyncTextStream(source, Accumulator(is_json=_responses.wants_json(params)))

    async def models(self) -> list[Model]:
        """The models the server offers, as the SDK's objects."""
        client = await self._opened()
        with _responses.readable():
            body = await client.get("/models", cast_to=object)
        return _responses.models(body)

    async def tokenize(self, text: str, *, add_special: bool = False) -> list[int]:
        """Token ids of a text; `add_special` adds what the model wants around a prompt, such as BOS."""
        body = _requests.tokenize(text, add_special=add_special)
        return _responses.tokens_of(await self._post("/tokenize", body))

    async def detokenize(self, tokens: Iterable[int]) -> str:
        """The text of token ids."""
        return _responses.text_of(await self._post("/detokenize", _requests.detokenize(tokens)))

    async def close(self) -> None:
        """Close this loop's connections and stop the server if it is ours. Safe to call again."""
        import anyio

        self._closed = True
        with anyio.CancelScope(shield=True):
            try:
                if self._http is not None:
                    await self._http.aclose()
            finally:
                if self._server is not None:
                    await anyio.to_thread.run_sync(self._stop_server, self._server)

    async def _post(self, route: str, body: dict[str, Any]) -> object:
        # Through the SDK for its errors, its key and its timeouts; native routes lie outside /v1.
        client = await self._opened()
        with _responses.readable():
            return await client.post(f"{self._root_url}{route}", cast_to=object, body=body)

    async def _known_model(self) -> str:
        if self._model_id is None:
            self._model_id = _responses.model_ids(await self.models())[0]
        return self._model_id

    async def _opened(self) -> AsyncLocalOpenAI:
        """The client, after a start that all callers share."""
        self._check_open()
        if self._client is not None:
            return self._client
        with self._lock:
            if self._opening is None:
                self._opening = Future()
                self._opening.set_running_or_notify_cancel()  # a waiter's cancellation ends its wait only
                threading.Thread(
                    target=self._open_in_thread, args=(self._opening,), name="mlxcel-start", daemon=True
                ).start()
            opening = self._opening
        return await _result_of(opening)

    def _open_in_thread(self, opening: Future[AsyncLocalOpenAI]) -> None:
        try:
            client = self._open()
        except BaseException as error:  # noqa: BLE001 - carried to whoever waits
            with self._lock:
                self._opening = None  # the next call may try again
            opening.set_exception(error)
        else:
            opening.set_result(client)

    def _open(self) -> AsyncLocalOpenAI:
        if self._server is not None:
            self._check_open()
            self._server.spawn()
        from . import _sdk, _transport  # takes a while: the server loads meanwhile

        if self._server is not None:
            self._server.wait_ready()
        self._adopt_served_model()
        endpoint = self._endpoint()
        timeout = _transport.to_timeout(self._timeout)
        http_client = self._http_client
        if http_client is None:
            http_client = self._http = _transport.async_http_client(endpoint, timeout, self._transport)
        client = _sdk.async_client(endpoint, http_client, timeout)
        self._root_url = endpoint.root_url
        self._client = client
        return client

    def _stop_server(self, server: ManagedServer) -> None:
        server.stop()
        # A start that was under way in its thread may spawn once more before it sees the end.
        while (opening := self._opening) is not None and not opening.done():
            threading.Event().wait(_STOP_INTERVAL)
            server.stop()

    async def __aenter__(self) -> Self:
        try:
            await self._opened()
        except BaseException:
            await self.close()  # __aexit__ will not be called
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


async def _result_of(future: Future[AsyncLocalOpenAI]) -> AsyncLocalOpenAI:
    """Await a thread's future in whichever loop this is."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        import anyio

        return await anyio.to_thread.run_sync(future.result, abandon_on_cancel=True)
    return await asyncio.wrap_future(future)
