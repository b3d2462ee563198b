"""One request, or many side by side, for a caller that blocks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from . import _responses
from ._async_answering import working
from ._generation import Generation
from ._many import Answers, Call, Job, Kind, Many, given, lazy_job, width
from ._progress import PromptBar
from .errors import MlxcelError
from .iterators import ResultIterator

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Mapping

    from ._many import Outcome
    from ._requests import Messages
    from ._structured import ResponseFormat
    from ._timeout import TimeoutArgument
    from ._tool_prompt import ToolProtocol
    from .results import Result

__all__ = ["Answering"]


class Answering:
    """Runs one request itself, and many in an event loop of their own."""

    _progress: bool | None
    _width: int | None
    _tool_protocol: ToolProtocol

    def _answer(self, asked: Generation, model: str | None, timeout: TimeoutArgument) -> Result[Any]:
        raise NotImplementedError

    def _answer_in_loop(self) -> Callable[[Generation, str | None, TimeoutArgument], Awaitable[Result[Any]]]:
        """`_answer` to be awaited, in whichever event loop."""
        raise NotImplementedError

    def _chat(
        self, messages: Messages, params: Mapping[str, Any], response_format: ResponseFormat | None
    ) -> Generation:
        """A request for chat, with tools as this server takes them."""
        return Generation.chat(messages, params, response_format, self._tool_protocol)

    def _get(self, route: str) -> object:
        raise NotImplementedError

    def _ask(
        self, content: Any, is_part: Callable[[object], bool], call: Call, many: Many
    ) -> Result[Any] | list[Any] | ResultIterator[Any]:
        """Answer one prompt, or as many as there are."""
        kind = many.kind_of(content, is_part)
        if kind is Kind.ONE:
            return self._answer(*call.asked(Job(0, content, {})))
        if kind is Kind.LAZY:
            if not isinstance(content, Iterator):
                raise TypeError("LLM goes through plain iterators; AsyncLLM takes async ones too")
            return ResultIterator(self._lazily(content, call, many))
        jobs = many.jobs_of_list(content)
        if not jobs:
            return []
        from . import _loop_thread, _tasks  # with asyncio

        work, size = working(self._answer_in_loop(), call), self._concurrency(many)
        with contextlib.closing(self._bar(len(jobs), many)) as bar:
            answers = Answers(len(jobs), many, bar)
            _loop_thread.run(lambda: _tasks.each(work, jobs, size, answers.add))
        return answers.all()

    def _lazily(self, prompts: Iterator[Any], call: Call, many: Many) -> Generator[Outcome]:
        from ._crew import in_order

        own = many.own()
        jobs = (lazy_job(index, prompt, own) for index, prompt in enumerate(prompts))
        outcomes = in_order(working(self._answer_in_loop(), call), jobs, self._concurrency(many))
        with contextlib.closing(self._bar(None, many)) as bar, contextlib.closing(outcomes):
            for index, outcome in enumerate(outcomes):
                yield given(index, outcome, many, bar)

    def _concurrency(self, many: Many) -> int:
        if many.concurrency is not None:
            return many.concurrency
        if self._width is None:
            import openai

            try:
                self._width = width(_responses.slots_of(self._get("/props")))
            except (openai.OpenAIError, MlxcelError):
                return width(None)  # no such route; what else is wrong, the prompts will tell
        return self._width

    def _bar(self, total: int | None, many: Many) -> PromptBar:
        return PromptBar(total, self._progress if many.progress is None else many.progress)
