"""A parameter that is sent to a server as it is, and is probably a slip: `temprature=0`."""

from __future__ import annotations

import difflib
import functools
import sys
import warnings

__all__ = ["warn_of_a_slip"]

_PACKAGE = __name__.rpartition(".")[0]
_OF_SERVERS = (
    "chat_template_kwargs",
    "enable_thinking",
    "frequency_penalty",
    "min_tokens",
    "repeat_penalty",
    "repetition_penalty",
    "stop_token_ids",
    "top_k",
    "typical_p",
    "xtc_probability",
    "xtc_threshold",
)
"""Names that are not OpenAI's and long enough to be misspelt."""
_LIKENESS = 0.9
"""A letter or two in ten; `min_tokens` and `max_tokens` are further apart."""


def warn_of_a_slip(name: str, fields: frozenset[str]) -> None:
    """Warn, in the line of the caller, of a name that is all but one that is known.

    It is sent all the same: servers have parameters that nobody here has heard of.
    """
    near = _nearest(name, fields)
    if near is not None:
        message = f"{name}= is sent to the server as it is; was {near}= meant?"
        warnings.warn(message, stacklevel=_depth_of_the_caller())


@functools.lru_cache(maxsize=256)
def _nearest(name: str, fields: frozenset[str]) -> str | None:
    known = fields.union(_OF_SERVERS)
    if name in known:
        return None
    return next(iter(difflib.get_close_matches(name, known, 1, _LIKENESS)), None)


def _depth_of_the_caller() -> int:
    """As `warnings.warn` counts, called in the function that calls this."""
    depth, frame = 1, sys._getframe(1)
    while frame.f_back is not None and _is_ours(str(frame.f_globals.get("__name__"))):
        depth, frame = depth + 1, frame.f_back
    return depth


def _is_ours(module: str) -> bool:
    return module == _PACKAGE or module.startswith(f"{_PACKAGE}.")
