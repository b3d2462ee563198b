"""Which model a request goes to: the one place that knows. Pure.

The ids come from `/v1/models`. A name that is not among them is refused here,
because many servers answer any name with the one model they have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import MlxcelModelNotServedError, MlxcelResponseError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ServedModels"]


class ServedModels:
    """The ids that a server listed, once it was asked."""

    def __init__(self) -> None:
        self._ids: tuple[str, ...] | None = None

    @property
    def default(self) -> str | None:
        """The first served model, or None while none is known."""
        return self._ids[0] if self._ids else None

    def learn(self, ids: Sequence[str]) -> None:
        """Take the list of a server; an empty one means that it keeps none, and any name is sent on."""
        self._ids = tuple(ids)

    def find(self, wanted: str | None) -> str | None:
        """The id to send for a caller's `model`, or None when the server has to be asked first."""
        if wanted is None:
            return self.default
        return wanted if self._ids is not None and (not self._ids or wanted in self._ids) else None

    def require(self, wanted: str | None) -> str:
        """The same right after the server was asked."""
        found = self.find(wanted)
        if found is not None:
            return found
        if wanted is None:
            raise MlxcelResponseError("the server lists no model in /v1/models: name one with model=")
        served = self._ids or ()
        raise MlxcelModelNotServedError(
            f"the server does not serve {wanted!r}; it serves {', '.join(map(repr, served))} "
            "(where models are loaded on demand, name it in extra_body={'model': …}: that is not checked)",
            served=served,
        )
