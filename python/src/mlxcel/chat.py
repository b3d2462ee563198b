"""`Chat` and `AsyncChat`: a conversation that remembers itself."""

from __future__ import annotations

import copy
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from . import _requests
from ._boundary import boundary
from ._toolbox import made
from ._window import budget_of, context_of, surely_fits, window
from .chat_streams import AsyncChatStream, AsyncToolTexts, ChatStream, ToolTexts
from .errors import MlxcelConfigError, MlxcelUnsupportedError
from .parts import user_message

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ._generation import Generation
    from ._requests import Messages
    from .async_llm import AsyncLLM
    from .chat_streams import AsyncTexts, Keep
    from .llm import LLM
    from .parts import Sources
    from .results import Result
    from .streams import AsyncTextStream
    from .tools import AnyTool, ToolRun

__all__ = ["AsyncChat", "Chat"]

LLMT = TypeVar("LLMT", "LLM", "AsyncLLM")
_FORMAT = "mlxcel chat 1"
_TEMPLATED = ("tools", "tool_choice", "chat_template_kwargs", "enable_thinking", "reasoning_effort")
"""Parameters that change the prompt."""


class _ChatBase(Generic[LLMT]):
    """What both kinds share; no I/O but for files."""

    messages: list[dict[str, Any]]
    """The whole conversation, in OpenAI's form; yours to change between two turns."""
    dropped: int
    """How many of the messages were not sent in the last turn, because the context was full."""

    def __init__(
        self,
        llm: LLMT,
        system: str | None = None,
        *,
        messages: Messages = (),
        tools: Iterable[AnyTool] | None = None,
        context: int | None = None,
        **params: Any,
    ) -> None:
        self._check(llm)
        if context is not None and context < 1:
            raise MlxcelConfigError(f"context is a number of tokens, not {context!r}")
        self._llm: LLMT = llm
        self._tools = None if tools is None else made(tools)
        self._context = context
        self._asked_context = context is not None
        self._params = params
        self.messages = [] if system is None else [{"role": "system", "content": system}]
        self.messages += _requests.conversation(messages)
        self.dropped = 0

    def _check(self, llm: object) -> None:
        raise NotImplementedError

    def branch(self) -> Self:
        """A conversation that begins like this one and goes on by itself."""
        other = copy.copy(self)
        other.messages = copy.deepcopy(self.messages)
        other._params = dict(self._params)
        return other

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the conversation to a JSON file; tools and parameters are not part of it."""
        target = Path(path)
        text = json.dumps({"format": _FORMAT, "messages": self.messages}, ensure_ascii=False, indent=1)
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=target.parent, prefix=f".{target.name}-", delete=False
        ) as file:
            try:
                file.write(text + "\n")
                file.close()
                Path(file.name).replace(target)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise

    @classmethod
    def load(cls, path: str | os.PathLike[str], llm: LLMT, **options: Any) -> Self:
        """Go on with a conversation that was saved; options are the constructor's.

        Raises MlxcelConfigError for a file that `save` has not written.
        """
        try:
            saved = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise MlxcelConfigError(f"{os.fspath(path)} is not a saved conversation: {error}") from error
        messages = saved.get("messages") if isinstance(saved, dict) else None
        if not isinstance(messages, list) or saved.get("format") != _FORMAT:
            raise MlxcelConfigError(f"{os.fspath(path)} is not a saved conversation (format {_FORMAT!r})")
        return cls(llm, messages=messages, **options)

    def _merged(self, params: dict[str, Any]) -> dict[str, Any]:
        return {**self._params, **params}

    def _counted(self, messages: list[dict[str, Any]], params: dict[str, Any]) -> Generation:
        """The request whose prompt is counted."""
        given = {name: params[name] for name in _TEMPLATED if name in params}
        if self._tools is not None:
            given["tools"] = self._tools
        asked: Generation = self._llm._chat(messages, given, None)
        return asked

    def _needs_no_count(self, messages: Sequence[dict[str, Any]], budget: int) -> bool:
        wire = [] if self._tools is None else self._counted([], {}).params.get("tools", [])
        return surely_fits(messages, wire, budget)

    def _take(self, user: dict[str, Any], answer: Sequence[dict[str, Any]]) -> None:
        self.messages += [user, *answer]

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self.messages)} messages>"


class Chat(_ChatBase["LLM"]):
    """A conversation with an `LLM`.

        chat = Chat(llm, system="Be brief.")
        print(chat.send("What is 17 + 25?"))

    `params` go with each turn (`temperature`, …), and with `tools` (see `run_tools`) also its options;
    those of a turn win. A turn that fails leaves the conversation as it was.

    `messages` is the whole conversation. When it grows too long for the model's context (the server's
    `n_ctx`, or `context` tokens), the oldest turns are not sent: see `dropped`. Never dropped are the
    system message and the last turn; calls stay with their results. Room is kept for `max_tokens` of
    answer, or else for 1024 or a quarter of the context. Tokens are counted by the server; one that
    cannot (it lacks `/props` or `/apply-template`) is sent everything, and its error tells.
    """

    def _check(self, llm: object) -> None:
        from .llm import LLM

        if not isinstance(llm, LLM):
            raise MlxcelConfigError(f"Chat goes with an LLM, not {llm!r}; for an AsyncLLM there is AsyncChat")

    @boundary
    def send(self, text: str, *, images: Sources = (), files: Sources = (), **params: Any) -> Result:
        """Say something and get the answer; images and files by path, bytes or URL."""
        user, merged = user_message(text, images, files), self._merged(params)
        sent = self._window([*self.messages, user], merged)
        if self._tools is None:
            result: Result = self._llm.chat(sent, **merged)
            self._take(user, [result.as_message()])
            return result
        run: ToolRun = self._llm.run_tools(sent, tools=self._tools, **merged)
        self._take(user, run.messages[len(sent) :])
        return run

    @boundary
    def stream(self, text: str, *, images: Sources = (), files: Sources = (), **params: Any) -> ChatStream:
        """Say something and get the answer as it is written; it is part of the conversation once whole."""
        user, merged = user_message(text, images, files), self._merged(params)
        sent = self._window([*self.messages, user], merged)
        if self._tools is None:
            stream = self._llm.chat_stream(sent, **merged)
            return ChatStream(stream, lambda result: self._take(user, [result.as_message()]))
        run = self._llm._tool_run(sent, self._tools, **merged)
        return ChatStream(ToolTexts(run), lambda run: self._take(user, run.messages[len(sent) :]))

    def _window(self, messages: list[dict[str, Any]], params: dict[str, Any]) -> list[dict[str, Any]]:
        sent = messages
        if not self._asked_context:
            self._context, self._asked_context = self._server_context(), True
        if self._context is not None:
            budget = budget_of(self._context, params)
            if not self._needs_no_count(messages, budget):
                sent = self._fitted(messages, params, budget)
        self.dropped = len(messages) - len(sent)
        return sent

    def _server_context(self) -> int | None:
        try:
            return context_of(self._llm.props())
        except MlxcelUnsupportedError:
            return None

    def _fitted(
        self, messages: list[dict[str, Any]], params: dict[str, Any], budget: int
    ) -> list[dict[str, Any]]:
        steps = window(messages, budget)
        try:
            part = next(steps)
            while True:
                asked = self._counted(part, params)
                prompt = self._llm.apply_template(asked.content, **asked.params)
                part = steps.send(len(self._llm.tokenize(prompt)))
        except StopIteration as found:
            fitting: list[dict[str, Any]] = found.value
            return fitting
        except MlxcelUnsupportedError:
            return messages


class AsyncChat(_ChatBase["AsyncLLM"]):
    """A conversation with an `AsyncLLM`; otherwise a `Chat`, awaited."""

    def _check(self, llm: object) -> None:
        from .async_llm import AsyncLLM

        if not isinstance(llm, AsyncLLM):
            raise MlxcelConfigError(f"AsyncChat goes with an AsyncLLM, not {llm!r}; for an LLM there is Chat")

    @boundary
    async def send(self, text: str, *, images: Sources = (), files: Sources = (), **params: Any) -> Result:
        """Say something and get the answer; images and files by path, bytes or URL."""
        user, merged = user_message(text, images, files), self._merged(params)
        sent = await self._window([*self.messages, user], merged)
        if self._tools is None:
            result: Result = await self._llm.chat(sent, **merged)
            self._take(user, [result.as_message()])
            return result
        run: ToolRun = await self._llm.run_tools(sent, tools=self._tools, **merged)
        self._take(user, run.messages[len(sent) :])
        return run

    @boundary
    def stream(
        self, text: str, *, images: Sources = (), files: Sources = (), **params: Any
    ) -> AsyncChatStream:
        """Say something and get the answer as it is written; it is part of the conversation once whole."""
        user, merged = user_message(text, images, files), self._merged(params)

        async def begin() -> tuple[AsyncTexts, Keep]:
            sent = await self._window([*self.messages, user], merged)
            if self._tools is None:
                stream: AsyncTextStream = self._llm.chat_stream(sent, **merged)
                return stream, lambda result: self._take(user, [result.as_message()])
            run = self._llm._tool_run(sent, self._tools, **merged)
            return AsyncToolTexts(run), lambda run: self._take(user, run.messages[len(sent) :])

        return AsyncChatStream(begin)

    async def _window(self, messages: list[dict[str, Any]], params: dict[str, Any]) -> list[dict[str, Any]]:
        sent = messages
        if not self._asked_context:
            self._context, self._asked_context = await self._server_context(), True
        if self._context is not None:
            budget = budget_of(self._context, params)
            if not self._needs_no_count(messages, budget):
                sent = await self._fitted(messages, params, budget)
        self.dropped = len(messages) - len(sent)
        return sent

    async def _server_context(self) -> int | None:
        try:
            return context_of(await self._llm.props())
        except MlxcelUnsupportedError:
            return None

    async def _fitted(
        self, messages: list[dict[str, Any]], params: dict[str, Any], budget: int
    ) -> list[dict[str, Any]]:
        steps = window(messages, budget)
        try:
            part = next(steps)
            while True:
                asked = self._counted(part, params)
                prompt = await self._llm.apply_template(asked.content, **asked.params)
                part = steps.send(len(await self._llm.tokenize(prompt)))
        except StopIteration as found:
            fitting: list[dict[str, Any]] = found.value
            return fitting
        except MlxcelUnsupportedError:
            return messages
