"""The one refusal that is waited out: a full queue. Pure.

Such a request never started, so sending it again repeats nothing. Every other
status is the caller's to see, and a request that timed out is never sent again:
the second generation would queue behind the first.
"""

from __future__ import annotations

import logging

__all__ = ["queue_pause"]

_DEFAULT_PAUSE = 1.0
_SHORTEST_PAUSE = 0.05
_LONGEST_PAUSE = 60.0

_logger = logging.getLogger("mlxcel.client")


def queue_pause(error: Exception) -> float | None:
    """Seconds that the server asks to wait because its queue is full; None for any other error."""
    import openai

    if not isinstance(error, openai.APIStatusError) or error.status_code != 503 or error.code != "queue_full":
        return None
    try:
        seconds = float(error.response.headers.get("retry-after", _DEFAULT_PAUSE))
    except ValueError:  # a date
        seconds = _DEFAULT_PAUSE
    if not seconds >= 0:
        seconds = _DEFAULT_PAUSE
    pause = min(max(seconds, _SHORTEST_PAUSE), _LONGEST_PAUSE)
    _logger.info("the server's queue is full: trying again in %g s", pause)
    return pause
