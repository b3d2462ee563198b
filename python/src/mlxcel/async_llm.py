"""`AsyncLLM`: the same as `LLM`, for asyncio (and trio, as far as the SDK goes)."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, overload

from . import _responses
from ._async_routes import AsyncRoutes
from ._async_streaming import AsyncStreaming, StreamT
from ._boundary import Explained, boundary
from ._client import PROPS_SECONDS
from ._deadline import Deadline
from ._imports import without_collections
from ._native import Call
from ._timeout import CLIENTS, as_timeout, to_httpx2
from ._tool_loop import ToolLoop
from ._tool_run import AsyncRun
from ._waiting import close, waiting
from .errors import MlxcelStateError
from .streams import AsyncEventStream, AsyncTextStream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from openai import AsyncOpenAI, AsyncStream

    from ._client import ClientBase
    from ._generation import Generation
    from ._requests import Messages
    from ._sdk import AsyncLocalOpenAI
    from ._server_protocol import Server
    from ._structured import ResponseFormat
    from ._timeout import TimeoutArgument
    from .results import Result
    from .tools import AnyTool, Approval, ToolEvent, ToolRun

__all__ = ["AsyncLLM"]

T = TypeVar("T")

_STOP_INTERVAL = 0.05


class AsyncLLM(AsyncStreaming, AsyncRoutes):
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

    @classmethod
    def _twin_of(cls, client: ClientBase[Any, Any]) -> Self:
        """For event loops what a blocking client is for threads; its server stays that one's to stop."""
        twin = cls.__new__(cls)
        vars(twin).update(vars(client), _client=None, _http=None)
        twin._begin()
        twin._connected()
        return twin

    def _begin(self) -> None:
        self._opening: Future[AsyncLocalOpenAI] | None = None
        self._lock = threading.Lock()

    @boundary
    async def ready(self) -> Self:
        """Wait until requests can be answered: the server is up and its model known."""
        await self._opened()
        deadline = Deadline(self._timeout)
        with Explained(deadline, self._where), deadline, waiting(deadline):
            await self._model_for(None, deadline)
        return self

    @property
    @boundary
    def model(self) -> str:
        """Id of the served model that requests go to; known after `await llm.ready()` or a request."""
        if (known := self._served.default) is None:
            raise MlxcelStateError("the model is not known yet: await llm.ready() first")
        return known

    @property
    @boundary
    def openai_client(self) -> AsyncOpenAI:
        """The OpenAI SDK's client on this server, for everything that is not wrapped here."""
        self._check_open()
        if self._client is None:
            if self._server is not None:
                raise MlxcelStateError("the server was not started yet: await llm.ready() first")
            return self._open()
        return self._client

    @overload
    async def run_tools(
        self,
        messages: Messages,
        *,
        tools: Iterable[AnyTool],
        response_format: type[T],
        max_steps: int = 10,
        max_malformed: int = 3,
        parallel: bool = True,
        on_error: Literal["report", "raise"] = "report",
        approve: Approval | None = None,
        on_event: Callable[[ToolEvent], object] | None = None,
        model: str | None = None,
        timeout: TimeoutArgument = CLIENTS,
        **params: Any,
    ) -> ToolRun[T]: ...

    @overload
    async def run_tools(
        self,
        messages: Messages,
        *,
        tools: Iterable[AnyTool],
        response_format: ResponseFormat | None = None,
        max_steps: int = 10,
        max_malformed: int = 3,
        parallel: bool = True,
        on_error: Literal["report", "raise"] = "report",
        approve: Approval | None = None,
        on_event: Callable[[ToolEvent], object] | None = None,
        model: str | None = None,
        timeout: TimeoutArgument = CLIENTS,
        **params: Any,
    ) -> ToolRun: ...

    @boundary
    async def run_tools(
        self,
        messages: Messages,
        *,
        tools: Iterable[AnyTool],
        response_format: ResponseFormat | None = None,
        max_steps: int = 10,
        max_malformed: int = 3,
        parallel: bool = True,
        on_error: Literal["report", "raise"] = "report",
        approve: Approval | None = None,
        on_event: Callable[[ToolEvent], object] | None = None,
        model: str | None = None,
        timeout: TimeoutArgument = CLIENTS,
        **params: Any,
    ) -> ToolRun[Any]:
        """Chat, execute the Python functions that the model calls, tell it the results, until it answers.

        At most `max_steps` answers are asked for (MlxcelToolStepsError), and at most `max_malformed` of
        them in a row may hold a malformed call: the model is told, nothing of that answer is executed,
        and then it is a MlxcelToolArgumentsError. Calls of one answer run side by side, or with
        `parallel=False` in order. What a function raises is told to the model, or with `on_error="raise"`
        raised. `approve` is asked before each call, see `Approval`; `on_event` is told everything as it
        happens, see `ToolEvent`. `timeout` is for each answer.
        """
        run = self._tool_run(
            messages,
            tools,
            response_format=response_format,
            max_steps=max_steps,
            max_malformed=max_malformed,
            parallel=parallel,
            on_error=on_error,
            approve=approve,
            on_event=on_event,
            model=model,
            timeout=timeout,
            **params,
        )
        return await run.finish()

    def _tool_run(
        self,
        messages: Messages,
        tools: Iterable[AnyTool],
        *,
        response_format: ResponseFormat | None = None,
        max_steps: int = 10,
        max_malformed: int = 3,
        parallel: bool = True,
        on_error: str = "report",
        approve: Approval | None = None,
        on_event: Callable[[ToolEvent], object] | None = None,
        model: str | None = None,
        timeout: TimeoutArgument = CLIENTS,
        **params: Any,
    ) -> AsyncRun:
        """What `run_tools` finishes at once, and a `Chat` streams."""
        loop = ToolLoop(
            messages, tools, params, max_steps=max_steps, max_malformed=max_malformed, on_error=on_error
        )

        def asked(loop: ToolLoop) -> Generation:
            return self._chat(loop.messages, loop.params(), response_format)

        return AsyncRun(
            loop,
            lambda loop: self._answer(asked(loop), model, timeout),
            lambda loop: self._stream(asked(loop), model, timeout, AsyncEventStream),
            parallel=parallel,
            approve=approve,
            on_event=on_event,
        )

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

    async def _answer(self, asked: Generation, model: str | None, timeout: TimeoutArgument) -> Result[Any]:
        limits = self._limits(timeout)
        if limits.needs_stream:
            return await self._stream(asked, model, limits, AsyncTextStream).result()
        await self._opened()
        deadline = Deadline(limits)
        with Explained(deadline, self._where), deadline, waiting(deadline):
            return asked.read(await self._send(asked, model, deadline, stream=False))

    def _stream(
        self, asked: Generation, model: str | None, timeout: TimeoutArgument, kind: type[StreamT]
    ) -> StreamT:
        limits = self._limits(timeout)

        async def begin() -> Deadline:
            await self._opened()
            return Deadline(limits)

        async def open_source(deadline: Deadline) -> AsyncStream[Any]:
            source: AsyncStream[Any] = await self._send(asked, model, deadline, stream=True)
            try:
                _responses.check_stream(source.response)
            except BaseException:
                await close(source)
                raise
            return source

        return kind(begin, open_source, asked, lambda: self._where)

    async def _send(self, asked: Generation, model: str | None, deadline: Deadline, *, stream: bool) -> Any:
        """The SDK's reply or stream, once the server has room for the request."""
        client = await self._opened()
        from ._create import create_async  # the SDK is loaded by then

        name = asked.unchecked_model or await self._model_for(model, deadline)
        arguments = asked.arguments(name, to_httpx2(deadline.timeout), stream=stream)
        return await self._patiently(partial(create_async, client, asked.route, **arguments), deadline)

    async def _get(self, route: str) -> object:
        return await self._request(Call("GET", route), as_timeout(PROPS_SECONDS))

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
        with without_collections("openai"):
            from . import _sdk  # noqa: F401 - takes a while: the server loads meanwhile

        if self._server is not None:
            self._server.wait_ready()
        return self._connected()

    def _connected(self) -> AsyncLocalOpenAI:
        from . import _sdk, _transport

        endpoint = self._endpoint()
        timeout = to_httpx2(self._timeout)
        http_client = self._http_client
        if http_client is None:
            http_client = self._http = _transport.async_http_client(
                endpoint, timeout, self._transport, self._server
            )
        client = _sdk.async_client(endpoint, http_client, timeout)
        self._opened_at(endpoint)
        self._client = client
        return client

    def _stop_server(self, server: Server) -> None:
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
