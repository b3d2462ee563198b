"""Many prompts in one call: what is one prompt and what is many, and what comes of those that fail. Pure.

The running is done by `_tasks` and `_crew`, which know nothing of prompts.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, Any, TypeAlias

from .errors import (
    MlxcelBatchError,
    MlxcelConfigError,
    MlxcelConnectionError,
    MlxcelServerCrashedError,
    MlxcelStateError,
    MlxcelTimeoutError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ._generation import Generation
    from ._progress import PromptBar
    from ._structured import ResponseFormat
    from ._timeout import TimeoutArgument
    from .results import Result

__all__ = [
    "Answers",
    "Call",
    "Job",
    "Kind",
    "Many",
    "Outcome",
    "Sampling",
    "count",
    "given",
    "is_message",
    "is_token",
    "lazy_job",
    "stops_all",
    "width",
]

Sampling: TypeAlias = "Iterable[Mapping[str, Any]]"
"""Keywords of a call for each prompt by itself; they win over those of all."""

Outcome: TypeAlias = "Result[Any] | Exception"
"""What came of one prompt."""

_UNKNOWN_SLOTS_WIDTH = 16
_SLOTS_AHEAD = 4
"""Requests for each slot: one is computed while others already wait in the server.

Short answers and a client that is short of processor time would leave slots empty with fewer."""
_MOST = 256


class Kind(enum.Enum):
    """What a first argument holds."""

    ONE = "one prompt"
    LIST = "a list of prompts"
    LAZY = "an iterator of prompts"


@dataclass(frozen=True, slots=True)
class Job:
    """One prompt of many, and the keywords that are for it alone."""

    index: int
    prompt: Any
    own: Mapping[str, Any]


def is_token(part: object) -> bool:
    """Whether this is part of one prompt of `generate`."""
    return isinstance(part, int)


def is_message(part: object) -> bool:
    """Whether this is part of one conversation of `chat`."""
    return hasattr(part, "keys")


def width(slots: int | None) -> int:
    """Requests to have under way at a server with so many slots (None: it does not tell)."""
    return _UNKNOWN_SLOTS_WIDTH if slots is None else max(1, min(_SLOTS_AHEAD * slots, _MOST))


@dataclass(frozen=True)
class Many:
    """The keywords that are about many prompts, whichever they are."""

    sampling: Sampling | None = None
    concurrency: int | None = None
    return_exceptions: bool = False
    progress: bool | None = None

    def __post_init__(self) -> None:
        if self.concurrency is not None and not _is_count(self.concurrency):
            raise MlxcelConfigError(f"concurrency is a number of requests, not {self.concurrency!r}")
        if self.sampling is not None and not _is_list(self.sampling):
            raise MlxcelConfigError(
                "sampling is a list with a dict for each prompt, such as [{'temperature': 0}, {'seed': 1}]; "
                "what holds for all of them are keywords of the call"
            )

    def kind_of(self, content: object, is_part: Callable[[object], bool]) -> Kind:
        """What a first argument is. Raises MlxcelConfigError for one prompt with keywords for many."""
        if not isinstance(content, str | bytes | Mapping):
            if isinstance(content, Iterator | AsyncIterator):
                return Kind.LAZY
            if isinstance(content, Iterable) and isinstance(content, Sized):
                nothing = object()
                first = next(iter(content), nothing)
                if first is nothing or not is_part(first):
                    return Kind.LIST
            elif isinstance(content, Iterable):
                raise TypeError(
                    f"a {type(content).__name__} is neither a prompt nor a list nor an iterator of prompts: "
                    "write list(…) for all of them at once, or iter(…) to go through them lazily"
                )
        if self != Many():
            raise MlxcelConfigError(
                "sampling, concurrency, return_exceptions and progress are for many prompts: "
                "give a list or an iterator of them"
            )
        return Kind.ONE

    def jobs_of_list(self, prompts: Any) -> list[Job]:
        """All of them. Raises MlxcelConfigError when `sampling` has another length."""
        listed = list(prompts)
        if self.sampling is None:
            return [Job(index, prompt, {}) for index, prompt in enumerate(listed)]
        own = list(self.sampling)
        if len(own) != len(listed):
            raise MlxcelConfigError(
                f"sampling has {len(own)} entries for {len(listed)} prompts: it is one dict a prompt"
            )
        return [
            Job(index, prompt, _checked(keywords))
            for index, (prompt, keywords) in enumerate(zip(listed, own, strict=True))
        ]

    def own(self) -> Iterator[Mapping[str, Any]]:
        """The keywords of one prompt after another."""
        if self.sampling is None:
            return repeat({})
        return map(_checked, self.sampling)


@dataclass(frozen=True)
class Call:
    """The keywords of a call, from which the request for each prompt is made."""

    build: Callable[[Any, Mapping[str, Any], Any], Generation]
    params: Mapping[str, Any]
    response_format: ResponseFormat | None
    model: str | None
    timeout: TimeoutArgument

    def asked(self, job: Job) -> tuple[Generation, str | None, TimeoutArgument]:
        """What is asked for one prompt, of which model, within which limits."""
        own = dict(job.own)
        model = own.pop("model", self.model)
        timeout = own.pop("timeout", self.timeout)
        response_format = own.pop("response_format", self.response_format)
        return self.build(job.prompt, {**self.params, **own}, response_format), model, timeout


class Answers:
    """What came of a list of prompts so far."""

    def __init__(self, count: int, many: Many, bar: PromptBar) -> None:
        self._results: list[Outcome | None] = [None] * count
        self._many = many
        self._bar = bar

    def add(self, index: int, outcome: Outcome) -> bool:
        """Keep the outcome of a prompt; whether it makes no sense to go on."""
        self._results[index] = outcome
        count(self._bar, outcome)
        return isinstance(outcome, Exception) and not self._many.return_exceptions and stops_all(outcome)

    def all(self) -> list[Any]:
        """The results in order. Raises MlxcelBatchError when one failed and errors are not to be returned."""
        if not self._many.return_exceptions:
            for index, outcome in enumerate(self._results):
                if isinstance(outcome, Exception):
                    raise failure(index, outcome, self._results) from outcome
        return self._results


def given(index: int, outcome: Outcome, many: Many, bar: PromptBar) -> Outcome:
    """The next outcome of a lazy run, as the caller sees it."""
    count(bar, outcome)
    if isinstance(outcome, Exception) and not many.return_exceptions:
        raise failure(index, outcome) from outcome
    return outcome


def count(bar: PromptBar, outcome: Outcome) -> None:
    """Show an outcome in the bar."""
    if isinstance(outcome, Exception):
        bar.add(0, failed=True)
    else:
        bar.add(outcome.usage.completion_tokens if outcome.usage is not None else 0)


def lazy_job(index: int, prompt: Any, own: Iterator[Mapping[str, Any]]) -> Job:
    """The next prompt of an iterator. Raises MlxcelConfigError when `sampling` ended before it."""
    keywords = next(own, None)
    if keywords is None:
        raise MlxcelConfigError(f"sampling ended before the prompts did: there is none for prompt {index}")
    return Job(index, prompt, keywords)


def stops_all(error: Exception) -> bool:
    """Whether no other prompt can fare better: nobody is there, or nobody may ask."""
    import openai

    if isinstance(error, MlxcelServerCrashedError):
        return not error.restarting
    if isinstance(error, MlxcelTimeoutError):
        return error.limit == "connect"
    if isinstance(error, MlxcelConnectionError):
        return "no server answers" in str(error)
    kinds = (MlxcelStateError, openai.AuthenticationError, openai.PermissionDeniedError)
    return isinstance(error, kinds)


def failure(index: int, error: Exception, results: Sequence[Outcome | None] = ()) -> MlxcelBatchError:
    """The error for a prompt that failed; it holds what came of the others."""
    failed = sum(isinstance(outcome, Exception) for outcome in results)
    unasked = sum(outcome is None for outcome in results)
    others = ""
    if failed > 1:
        others += f"; so did {failed - 1} more of {len(results)}"
    if unasked:
        others += f"; {unasked} were not asked any more"
    return MlxcelBatchError(f"prompt {index} failed{others}: {error}", index=index, results=results)


def _is_count(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number > 0


def _is_list(sampling: object) -> bool:
    return isinstance(sampling, Iterable) and not isinstance(sampling, str | Mapping)


def _checked(own: Any) -> Mapping[str, Any]:
    if not isinstance(own, Mapping):
        raise MlxcelConfigError(
            f"sampling has a dict of keywords for each prompt, not a {type(own).__name__}"
        )
    return own
