"""Many requests side by side, over the one request that `AsyncLLM` can do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from . import _responses
from ._boundary import boundary
from ._generation import Generation
from ._many import Answers, Call, Job, Kind, Many, given, lazy_job, width
from ._progress import PromptBar
from .errors import MlxcelError
from .iterators import AsyncResultIterator

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

    from ._many import Outcome
    from ._requests import Messages
    from ._structured import ResponseFormat
    from ._timeout import TimeoutArgument
    from ._tool_prompt import ToolProtocol
    from .results import Result

__all__ = ["AsyncAnswering", "working"]


def working(
    answer: Callable[[Generation, str | None, TimeoutArgument], Awaitable[Result[Any]]], call: Call
) -> Callable[[Job], Awaitable[Result[Any]]]:
    """What is done for each of many prompts."""

    @boundary
    async def work(job: Job) -> Result[Any]:
        return await answer(*call.asked(job))

    return work


class AsyncAnswering:
    """Runs many requests side by side, over the one request that the client can do."""

    _progress: bool | None
    _width: int | None
    _tool_protocol: ToolProtocol

    async def _answer(self, asked: Generation, model: str | None, timeout: TimeoutArgument) -> Result[Any]:
        raise NotImplementedError

    def _chat(
        self, messages: Messages, params: Mapping[str, Any], response_format: ResponseFormat | None
    ) -> Generation:
        """A request for chat, with tools as this server takes them."""
        return Generation.chat(messages, params, response_format, self._tool_protocol)

    async def _get(self, route: str) -> object:
        raise NotImplementedError

    async def _ask(
        self, content: Any, is_part: Callable[[object], bool], call: Call, many: Many
    ) -> Result[Any] | list[Any] | AsyncResultIterator[Any]:
        """Answer one prompt, or as many as there are."""
        from . import _tasks  # with asyncio

        kind = many.kind_of(content, is_part)
        if kind is Kind.ONE:
            return await self._answer(*call.asked(Job(0, content, {})))
        if kind is Kind.LAZY:
            jobs = _jobs(content, many)
            outcomes = _tasks.in_order(working(self._answer, call), jobs, await self._concurrency(many))
            return AsyncResultIterator(self._lazily(outcomes, many))
        listed = many.jobs_of_list(content)
        if not listed:
            return []
        bar = self._bar(len(listed), many)
        answers = Answers(len(listed), many, bar)
        try:
            await _tasks.each(working(self._answer, call), listed, await self._concurrency(many), answers.add)
        finally:
            bar.close()
        return answers.all()

    async def _lazily(self, outcomes: AsyncGenerator[Outcome], many: Many) -> AsyncGenerator[Outcome]:
        bar = self._bar(None, many)
        try:
            async with aclosing(outcomes):
                index = 0
                async for outcome in outcomes:
                    yield given(index, outcome, many, bar)
                    index += 1
        finally:
            bar.close()

    async def _concurrency(self, many: Many) -> int:
        if many.concurrency is not None:
            return many.concurrency
        if self._width is None:
            import openai

            try:
                self._width = width(_responses.slots_of(await self._get("/props")))
            except (openai.OpenAIError, MlxcelError):
                return width(None)  # no such route; what else is wrong, the prompts will tell
        return self._width

    def _bar(self, total: int | None, many: Many) -> PromptBar:
        return PromptBar(total, self._progress if many.progress is None else many.progress)


def _jobs(prompts: Any, many: Many) -> Iterator[Job] | AsyncIterator[Job]:
    own = many.own()
    if isinstance(prompts, Iterator):
        return (lazy_job(index, prompt, own) for index, prompt in enumerate(prompts))

    async def jobs() -> AsyncGenerator[Job]:
        index = 0
        async for prompt in prompts:
            yield lazy_job(index, prompt, own)
            index += 1

    return jobs()
