"""What the JSON of an answer can be held to: a type, or a JSON schema."""

from __future__ import annotations

from typing import Any, Protocol

__all__ = ["MismatchError", "NotJsonError", "Shape"]


class NotJsonError(Exception):
    """Text that is not JSON, or not all of it; the message says where that ends."""


class MismatchError(Exception):
    """JSON that is not of the form asked for; the message says where."""


class Shape(Protocol):
    """A form that reads the text of an answer."""

    def read(self, text: str) -> Any:
        """The value of a whole answer. Raises NotJsonError or MismatchError."""

    def partial(self, text: str) -> Any:
        """The value of the beginning of an answer, None while there is nothing to see."""
