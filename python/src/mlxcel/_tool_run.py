"""The I/O of `run_tools`: asking the model, asking for approval, executing functions; blocking and async."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from ._tool_loop import denied, failed, returned
from .events import TextDelta
from .tools import ToolStart

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator

    from ._tool_calls import ToolCall
    from ._tool_loop import ToolLoop
    from .results import Result
    from .streams import AsyncEventStream, EventStream
    from .tools import Approval, ToolEvent, ToolOutcome, ToolRun, ToolStep

    OnEvent = Callable[[ToolEvent], object] | None

__all__ = ["AsyncRun", "BlockingRun"]

_MOST_THREADS = 32


class BlockingRun:
    """A run in the caller's thread; functions in threads beside it, or one after the other in it."""

    def __init__(
        self,
        loop: ToolLoop,
        chat: Callable[[ToolLoop], Result[Any]],
        stream: Callable[[ToolLoop], EventStream[Any]],
        *,
        parallel: bool,
        approve: Approval | None,
        on_event: OnEvent,
    ) -> None:
        self._loop = loop
        self._chat = chat
        self._stream = stream
        self._parallel = parallel
        self._approve = approve
        self._tell: Callable[[ToolEvent], object] = on_event or _unheard
        self._listens = on_event is not None

    def finish(self) -> ToolRun[Any]:
        """Go on until the model answers without a call."""
        if self._listens:
            for _ in self.texts():
                pass
        else:
            while self._goes_on(self._chat(self._loop)):
                pass
        return self._loop.run()

    def texts(self) -> Generator[str]:
        """The same, with the text of each answer as it is written."""
        goes_on = True
        while goes_on:
            with self._stream(self._loop) as stream:
                for event in stream:
                    self._tell(event)
                    if isinstance(event, TextDelta):
                        yield event.text
                result = stream.result()
            goes_on = self._goes_on(result)

    def run(self) -> ToolRun[Any]:
        """All of it, once it is at its end."""
        return self._loop.run()

    def _goes_on(self, result: Result[Any]) -> bool:
        self._tell(self._step(result))
        return bool(result.tool_calls)

    def _step(self, result: Result[Any]) -> ToolStep:
        loop = self._loop
        calls = loop.calls(result)
        outcomes = loop.refused(result)
        if calls:
            refusals = {at: denied for at, call in enumerate(calls) if (denied := self._refusal(call))}
            outcomes = self._execute(calls, refusals)
        else:
            for outcome in outcomes:
                self._tell(outcome)
        return loop.end_step(result, outcomes)

    def _refusal(self, call: ToolCall) -> ToolOutcome | None:
        if self._approve is None:
            return None
        answer = self._approve(call)
        if inspect.isawaitable(answer):
            answer = _result_of(answer)
        return None if answer is True else denied(call, self._loop.number, answer)

    def _execute(self, calls: list[ToolCall], refusals: dict[int, ToolOutcome]) -> list[ToolOutcome]:
        going = {at: call for at, call in enumerate(calls) if at not in refusals}
        outcomes = dict(refusals)
        if not self._parallel or not going:
            for at, call in enumerate(calls):
                if at in going:
                    self._tell(ToolStart(call, self._loop.number))
                    outcomes[at] = self._kept(self._executed(call))
                self._tell(outcomes[at])
            return [outcomes[at] for at in range(len(calls))]
        with ThreadPoolExecutor(min(len(going), _MOST_THREADS), thread_name_prefix="mlxcel-tool") as pool:
            running = {}
            for at, call in going.items():
                self._tell(ToolStart(call, self._loop.number))
                context = contextvars.copy_context()
                running[at] = pool.submit(context.run, self._executed, call)
            for at in range(len(calls)):
                if at in running:
                    outcomes[at] = running[at].result()
                self._tell(outcomes[at])
        return [self._kept(outcomes[at]) for at in range(len(calls))]

    def _executed(self, call: ToolCall) -> ToolOutcome:
        tool, step = self._loop.toolbox.tools[call.name], self._loop.number
        try:
            value = tool.function(**call.arguments)
            if inspect.isawaitable(value):
                value = _result_of(value)
        except Exception as error:  # noqa: BLE001 - told to the model, or raised by `_kept`
            return failed(call, step, error)
        return returned(call, step, value)

    def _kept(self, outcome: ToolOutcome) -> ToolOutcome:
        if self._loop.raises and outcome.executed and outcome.error is not None:
            raise outcome.error
        return outcome


class AsyncRun:
    """A run in a task; plain functions in threads, so that the event loop goes on."""

    def __init__(
        self,
        loop: ToolLoop,
        chat: Callable[[ToolLoop], Awaitable[Result[Any]]],
        stream: Callable[[ToolLoop], AsyncEventStream[Any]],
        *,
        parallel: bool,
        approve: Approval | None,
        on_event: OnEvent,
    ) -> None:
        self._loop = loop
        self._chat = chat
        self._stream = stream
        self._parallel = parallel
        self._approve = approve
        self._on_event = on_event

    async def finish(self) -> ToolRun[Any]:
        """Go on until the model answers without a call."""
        if self._on_event is not None:
            async for _ in self.texts():
                pass
        else:
            while await self._goes_on(await self._chat(self._loop)):
                pass
        return self._loop.run()

    async def texts(self) -> AsyncGenerator[str]:
        """The same, with the text of each answer as it is written."""
        goes_on = True
        while goes_on:
            async with self._stream(self._loop) as stream:
                async for event in stream:
                    await self._tell(event)
                    if isinstance(event, TextDelta):
                        yield event.text
                result = await stream.result()
            goes_on = await self._goes_on(result)

    def run(self) -> ToolRun[Any]:
        """All of it, once it is at its end."""
        return self._loop.run()

    async def _goes_on(self, result: Result[Any]) -> bool:
        await self._tell(await self._step(result))
        return bool(result.tool_calls)

    async def _tell(self, event: ToolEvent) -> None:
        if self._on_event is not None and inspect.isawaitable(told := self._on_event(event)):
            await told

    async def _step(self, result: Result[Any]) -> ToolStep:
        loop = self._loop
        calls = loop.calls(result)
        outcomes = loop.refused(result)
        if calls:
            refusals = {at: no for at, call in enumerate(calls) if (no := await self._refusal(call))}
            outcomes = await self._execute(calls, refusals)
        else:
            for outcome in outcomes:
                await self._tell(outcome)
        return loop.end_step(result, outcomes)

    async def _refusal(self, call: ToolCall) -> ToolOutcome | None:
        if self._approve is None:
            return None
        answer = self._approve(call)
        if inspect.isawaitable(answer):
            answer = await answer
        return None if answer is True else denied(call, self._loop.number, answer)

    async def _execute(self, calls: list[ToolCall], refusals: dict[int, ToolOutcome]) -> list[ToolOutcome]:
        import anyio

        outcomes = dict(refusals)
        raised: list[Exception] = []  # not as a group of exceptions

        async def one(at: int, call: ToolCall) -> None:
            try:
                if at not in refusals:
                    await self._tell(ToolStart(call, self._loop.number))
                    outcomes[at] = await self._executed(call)
                await self._tell(outcomes[at])
            except Exception as error:  # noqa: BLE001 - `on_event`'s, raised below
                raised.append(error)
            else:
                raised.extend(self._fatal(outcomes[at]))
            if raised:
                group.cancel_scope.cancel()  # the others are not waited for

        async with anyio.create_task_group() as group:
            for at, call in enumerate(calls):
                if self._parallel:
                    group.start_soon(one, at, call)
                else:
                    await one(at, call)
        if raised:
            raise raised[0]
        return [outcomes[at] for at in range(len(calls))]

    def _fatal(self, outcome: ToolOutcome) -> list[Exception]:
        fatal = self._loop.raises and outcome.executed and outcome.error is not None
        return [outcome.error] if fatal and outcome.error is not None else []

    async def _executed(self, call: ToolCall) -> ToolOutcome:
        import anyio

        tool, step = self._loop.toolbox.tools[call.name], self._loop.number
        try:
            if tool.is_async:
                value = await tool.function(**call.arguments)
            else:
                value = await anyio.to_thread.run_sync(partial(tool.function, **call.arguments))
                if inspect.isawaitable(value):
                    value = await value
        except Exception as error:  # noqa: BLE001 - told to the model, or raised by `_execute`
            return failed(call, step, error)
        return returned(call, step, value)


def _unheard(_event: ToolEvent) -> None:
    pass


def _result_of(awaitable: Awaitable[Any]) -> Any:
    """Of something async in blocking code: in an event loop of its own."""

    async def waited() -> Any:
        return await awaitable

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(waited())
    with ThreadPoolExecutor(1, thread_name_prefix="mlxcel-tool") as pool:  # a notebook's loop runs here
        return pool.submit(asyncio.run, waited()).result()
