"""`LLM`: a language model behind one object, blocking."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, overload

from . import _responses
from ._blocking_routes import Routes
from ._boundary import Explained, boundary
from ._client import PROPS_SECONDS
from ._deadline import Deadline
from ._imports import without_collections
from ._native import Call
from ._streaming import Streaming, StreamT
from ._timeout import CLIENTS, as_timeout, to_httpx2
from ._tool_loop import ToolLoop
from ._tool_run import BlockingRun
from .errors import MlxcelStateError
from .streams import EventStream, TextStream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from types import TracebackType

    from openai import OpenAI

    from ._generation import Generation
    from ._requests import Messages
    from ._sdk import LocalOpenAI
    from ._structured import ResponseFormat
    from ._timeout import TimeoutArgument
    from .async_llm import AsyncLLM
    from .results import Result
    from .tools import AnyTool, Approval, ToolEvent, ToolRun

__all__ = ["LLM"]

T = TypeVar("T")


class LLM(Streaming, Routes):
    """A language model to talk to.

        with LLM("mlxcel-tiny") as llm:
            print(llm.chat("What is 17 + 25?"))

    With `model` (a folder, `owner/name` on the Hugging Face hub, or
    `mlxcel-tiny`) it starts a private server and stops it again; `socket` then
    names where that one listens. Without, it connects to a server that runs:
    at `base_url`, at the Unix socket `socket`, through an `httpx2` `transport`,
    or through a ready-made `http_client`, which stays the caller's to close.

    `api_key` is the key that server wants (else MLXCEL_API_KEY of the
    environment), `extra_headers` go with every request, and `verify` says whom
    to trust for `https`: True for the system's authorities, a file or folder of
    certificates, an `ssl.SSLContext`, or False for anybody.

    `timeout` is a number of seconds for each whole call, or a `Timeout` with
    several limits; None lets a generation take its time. `binary`, `host`, `port`,
    `startup_timeout`, `shutdown_grace`, `ctx_size`, `n_predict`, `n_parallel`,
    `alias`, `warmup`, `extra_args`, `restart`, `on_state` and `progress` are for
    the server: see `ManagedServer`. `share=True` joins the server that another
    process of yours runs for the same model and options, or starts one for all of
    them, see `SharedServer`; that one leaves `idle_timeout` seconds after its
    last user.

    Sampling parameters are keywords of each call: OpenAI's (`max_tokens`,
    `temperature`, `top_p`, `n`, `stop`, `seed`, `logprobs`, `response_format`,
    `tools`, …) and the server's own (`top_k`, `min_p`, `repetition_penalty`, …);
    names that are not known here travel too, and `extra_body` wins over all.
    `model=` names another served model; `timeout=` overrides the client's limits.

    Raises MlxcelConfigError for arguments that contradict each other and the
    errors of `ManagedServer` when the server does not start; an HTTP error
    status is the exception of the `openai` package; `mlxcel.errors` has the
    rest. May be used from many threads, and in a forked child.
    """

    _client: LocalOpenAI | None = None
    _twin: AsyncLLM | None = None
    """The same for event loops, from the first list of prompts on."""

    def _begin(self) -> None:
        try:
            if self._server is not None:
                self._server.spawn()
            with without_collections("openai"):
                from . import _sdk, _transport  # takes a while: the server loads meanwhile

            if self._server is not None:
                self._server.wait_ready()
            endpoint = self._endpoint()
            timeout = to_httpx2(self._timeout)
            http_client = self._http_client
            if http_client is None:
                http_client = self._http = _transport.http_client(
                    endpoint, timeout, self._transport, self._server
                )
            self._client = _sdk.sync_client(endpoint, http_client, timeout)
            self._opened_at(endpoint)
        except BaseException:
            self.close()
            raise

    @property
    @boundary
    def model(self) -> str:
        """Id of the served model that requests go to; asked from the server once."""
        if (known := self._served.default) is not None:
            return known
        deadline = Deadline(self._timeout)
        with Explained(deadline, self._where), deadline:
            return self._model_for(None, deadline)

    @property
    @boundary
    def openai_client(self) -> OpenAI:
        """The OpenAI SDK's client on this server, for everything that is not wrapped here."""
        return self._opened()

    @overload
    def run_tools(
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
    def run_tools(
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
    def run_tools(
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
        return run.finish()

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
    ) -> BlockingRun:
        """What `run_tools` finishes at once, and a `Chat` streams."""
        loop = ToolLoop(
            messages, tools, params, max_steps=max_steps, max_malformed=max_malformed, on_error=on_error
        )

        def asked(loop: ToolLoop) -> Generation:
            return self._chat(loop.messages, loop.params(), response_format)

        return BlockingRun(
            loop,
            lambda loop: self._answer(asked(loop), model, timeout),
            lambda loop: self._stream(asked(loop), model, timeout, EventStream),
            parallel=parallel,
            approve=approve,
            on_event=on_event,
        )

    def close(self) -> None:
        """Close the connections and stop the server if it is ours. Safe to call again."""
        self._closed = True
        try:
            if self._http is not None:
                self._http.close()
        finally:
            if self._server is not None:
                self._server.stop()

    def _opened(self) -> LocalOpenAI:
        self._check_open()
        if self._client is None:
            raise MlxcelStateError("this LLM was never opened")
        return self._client

    def _answer(self, asked: Generation, model: str | None, timeout: TimeoutArgument) -> Result[Any]:
        limits = self._limits(timeout)
        if limits.needs_stream:
            return self._stream(asked, model, limits, TextStream).result()
        deadline = Deadline(limits)
        with Explained(deadline, self._where), deadline:
            return asked.read(self._send(asked, model, deadline, stream=False))

    def _answer_in_loop(self) -> Callable[[Generation, str | None, TimeoutArgument], Awaitable[Result[Any]]]:
        if self._transport is not None or self._http_client is not None:
            from ._loop_thread import in_thread

            return partial(in_thread, self._answer)  # the caller's, which only blocks
        twin = self._twin
        if twin is None:
            from .async_llm import AsyncLLM

            twin = self._twin = AsyncLLM._twin_of(self)

        async def answer(asked: Generation, model: str | None, timeout: TimeoutArgument) -> Result[Any]:
            self._check_open()
            return await twin._answer(asked, model, timeout)

        return answer

    def _stream(
        self, asked: Generation, model: str | None, timeout: TimeoutArgument, kind: type[StreamT]
    ) -> StreamT:
        deadline = Deadline(self._limits(timeout))
        with Explained(deadline, self._where), deadline:
            source = self._send(asked, model, deadline, stream=True)
            try:
                _responses.check_stream(source.response)
            except BaseException:
                source.close()
                raise
        return kind(source, asked, deadline, self._where)

    def _send(self, asked: Generation, model: str | None, deadline: Deadline, *, stream: bool) -> Any:
        """The SDK's reply or stream, once the server has room for the request."""
        client = self._opened()
        from ._create import create  # the SDK is loaded by then

        name = asked.unchecked_model or self._model_for(model, deadline)
        arguments = asked.arguments(name, to_httpx2(deadline.timeout), stream=stream)
        return self._patiently(partial(create, client, asked.route, **arguments), deadline)

    def _get(self, route: str) -> object:
        return self._request(Call("GET", route), as_timeout(PROPS_SECONDS))

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not self._closed:
            with contextlib.suppress(Exception):
                self.close()
