"""How long a caller is ready to wait."""

from __future__ import annotations

import enum
import functools
import threading
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from .errors import MlxcelConfigError

if TYPE_CHECKING:
    import httpx2

__all__ = ["CLIENTS", "Timeout", "TimeoutArgument", "as_timeout", "to_httpx2"]

_CONNECT_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeout:
    """Limits of one call, in seconds; None is no limit. Each holds by itself.

    `connect`: each attempt to open a connection. `first_token`: from the call
    to the first piece of the answer, so also the wait for a free slot or for a
    restarted server. `between_tokens`: each wait for the next piece after that.
    `total`: the whole call, from its beginning to the end of the answer.
    """

    connect: float | None = _CONNECT_SECONDS
    first_token: float | None = None
    between_tokens: float | None = None
    total: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            _check(f"Timeout({field.name}=…)", getattr(self, field.name))

    @property
    def needs_stream(self) -> bool:
        """Whether only a streamed answer shows if the limits are kept."""
        return self.first_token is not None or self.between_tokens is not None

    def __str__(self) -> str:
        given = [(field.name, getattr(self, field.name)) for field in fields(self)]
        return ", ".join(f"{name} {value:g} s" for name, value in given if value is not None) or "none"


class _Clients(enum.Enum):
    CLIENTS = "the client's own"

    def __repr__(self) -> str:
        return "CLIENTS"


CLIENTS: Final = _Clients.CLIENTS
"""Default of a call's `timeout`: what the client was given."""

TimeoutArgument: TypeAlias = "float | Timeout | Literal[_Clients.CLIENTS] | None"


def as_timeout(value: Any) -> Timeout:
    """What a caller wrote, as limits: a number bounds the whole call, None nothing but connecting."""
    if isinstance(value, Timeout):
        return value
    if value is None:
        return Timeout()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MlxcelConfigError(
            f"timeout is a number of seconds for the whole call, or a mlxcel.Timeout(connect=…, "
            f"first_token=…, between_tokens=…, total=…), not {type(value).__module__}.{type(value).__name__}"
        )
    _check("timeout", value)
    return Timeout(connect=min(float(value), _CONNECT_SECONDS), total=float(value))


@functools.lru_cache(maxsize=64)
def to_httpx2(timeout: Timeout) -> httpx2.Timeout:
    """What the HTTP library can keep of it: limits of single reads and writes.

    Our own connections keep every limit exactly (see `_deadline`). Through a
    `transport` or `http_client` of the caller's this is what bounds a server
    that says nothing at all.
    """
    import httpx2

    silence = timeout.total
    if timeout.first_token is not None and timeout.between_tokens is not None:
        longest = max(timeout.first_token, timeout.between_tokens)
        silence = longest if silence is None else min(silence, longest)
    return httpx2.Timeout(connect=timeout.connect, read=silence, write=silence, pool=timeout.total)


def _check(name: str, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MlxcelConfigError(f"{name} is a number of seconds, not {value!r}")
    if not 0 < value <= threading.TIMEOUT_MAX:
        raise MlxcelConfigError(f"{name} is a number of seconds above 0, or None for no limit, not {value!r}")
