"""A server started, asked and stopped; or one that runs, asked."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .._state import ServerState
from .._units import duration
from ..errors import MlxcelError, MlxcelServerError, MlxcelTimeoutError
from ._check import Check, fail, ok, warn

if TYPE_CHECKING:
    from pathlib import Path

    from .._state import StateChange
    from ..llm import LLM

__all__ = ["Measured", "ask", "check_connection", "check_start"]

_PROMPT = "Once upon a time"
_TOKENS = 32
_ANSWER_SECONDS = 120.0


@dataclass(frozen=True)
class Measured:
    """Seconds to the first piece of text, then tokens a second."""

    first_token: float
    tokens: int
    tokens_per_second: float | None


def check_start(model: str, binary: Path, startup_timeout: float) -> list[Check]:
    """The whole chain: start a private server, load, generate, stop."""
    from ..llm import LLM

    changes: list[StateChange] = []
    try:
        llm = LLM(
            model,
            binary=binary,
            startup_timeout=startup_timeout,
            restart=None,
            on_state=changes.append,
            timeout=_ANSWER_SECONDS,
        )
    except MlxcelError as error:
        return [fail("start", f"the server did not start: {error}", _what_to_do(error))]
    with llm:
        at = {change.new: change.at for change in changes}
        began = at[ServerState.STARTING]
        details = {
            "answers_after": at[ServerState.LOADING] - began,
            "ready_after": at[ServerState.READY] - began,
        }
        props = _props(llm)
        details |= {
            name: props[name] for name in ("device", "mlx_version", "dtype", "n_ctx") if name in props
        }
        device = f" on the {str(props['device']).upper()}" if "device" in props else ""
        summary = f"ready after {duration(details['ready_after'])}{device}"
        return [ok("start", summary, **details), *_check_answer(llm)]


def check_connection(*, socket: str | None, base_url: str | None, model: str | None) -> list[Check]:
    """A server that runs: does it answer, does it take the key, does it generate?"""
    import openai

    from ..llm import LLM

    where = socket or base_url
    try:
        with LLM(socket=socket, base_url=base_url, timeout=_ANSWER_SECONDS) as llm:
            served = [entry.id for entry in llm.models(timeout=10)]
            checks = [ok("connection", f"{where} serves {', '.join(served) or 'nothing'}", models=served)]
            if model is not None and model not in served:
                advice = f"ask for one of: {', '.join(served)}"
                return [*checks, fail("answer", f"the server does not serve {model}", advice)]
            if not served:
                return [*checks, fail("answer", "the server serves no model", "load one into it")]
            return checks + _check_answer(llm, model or served[0])
    except openai.AuthenticationError:
        advice = "put the server's key into the variable MLXCEL_API_KEY"
        if os.environ.get("MLXCEL_API_KEY"):
            advice = "MLXCEL_API_KEY holds another server's key"
        return [fail("connection", f"{where} refuses the key", advice)]
    except openai.APIStatusError as error:
        advice = "is it still loading its model? wait and try again" if error.status_code == 503 else ""
        summary = f"{where} answered {error.status_code}: {error.message}"
        return [fail("connection", summary, advice or "is this the address of the OpenAI routes?")]
    except (MlxcelError, openai.OpenAIError) as error:
        advice = "is the server running, and at this address? `python -m mlxcel ps` lists yours"
        return [fail("connection", f"{where}: {error}", advice)]


def ask(llm: LLM, model: str | None = None) -> Measured:
    """One short answer, measured from the request on."""
    began = time.monotonic()
    with llm.stream(_PROMPT, max_tokens=_TOKENS, temperature=0, model=model) as stream:
        pieces = iter(stream)
        next(pieces, "")
        first = time.monotonic()
        result = stream.result()
        ended = time.monotonic()
    tokens = result.usage.completion_tokens if result.usage is not None else 0
    speed = (tokens - 1) / (ended - first) if tokens > 1 and ended > first else None
    return Measured(first - began, tokens, speed)


def _check_answer(llm: LLM, model: str | None = None) -> list[Check]:
    import openai

    try:
        measured = ask(llm, model)
    except (MlxcelError, openai.OpenAIError) as error:
        return [fail("answer", f"it does not generate: {error}", "the server's own output says more")]
    details = {
        "first_token": measured.first_token,
        "tokens": measured.tokens,
        "tokens_per_second": measured.tokens_per_second,
    }
    summary = f"first token after {duration(measured.first_token)}"
    if measured.tokens_per_second is None:
        advice = "nothing to worry about, if the model has little to say to a bare prompt"
        return [warn("answer", f"{summary}, but no second one", advice, **details)]
    return [ok("answer", f"{summary}, then {measured.tokens_per_second:.0f} tokens/s", **details)]


def _props(llm: LLM) -> dict[str, Any]:
    """What the server tells of itself; nothing from one that has no such route."""
    import openai

    endpoint = llm.openai_client.base_url.join("/props")
    try:
        body = llm.openai_client.get(str(endpoint), cast_to=object)
    except openai.OpenAIError:
        return {}
    return body if isinstance(body, dict) else {}


def _what_to_do(error: MlxcelError) -> str:
    said = getattr(error, "stderr_tail", "") + str(error)
    if "was built for mlx" in said:
        return "install the mlx version that it names"
    if isinstance(error, MlxcelTimeoutError):
        return "raise --startup-timeout if the model is very large or the disk slow"
    if "memory" in said.lower():
        return "choose a smaller or a quantized model"
    if isinstance(error, MlxcelServerError):
        return "the line that starts with `error:` says what is wrong"
    return ""
