"""A whole reply: its JSON at once, the SDK's object of it for those who want it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from openai.types import Completion
    from openai.types.chat import ChatCompletion

__all__ = ["Reply"]


class Reply(dict[str, Any]):
    """The JSON of a reply of `/v1/completions` or `/v1/chat/completions`.

    Making the SDK's object of it takes longer than all the rest of reading it, and few ask for that.
    """

    def __init__(
        self, body: dict[str, Any], route: Literal["completions", "chat"], request_id: str | None
    ) -> None:
        super().__init__(body)
        self._route = route
        self._request_id = request_id
        self._object: ChatCompletion | Completion | None = None

    def as_sdk_object(self) -> Any:
        """What the SDK's own `create` returns, the same object each time."""
        if self._object is None:
            from openai.types import Completion
            from openai.types.chat import ChatCompletion

            self._object = (ChatCompletion if self._route == "chat" else Completion).construct(**self)
            self._object._request_id = self._request_id
        return self._object
