"""The server's routes beside completions and chat: what to send, how a reply is read. Pure.

The SDK sends them, for its errors, its key and its timeouts. Those of OpenAI's
and Anthropic's APIs lie below /v1, the server's own beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import _requests
from .errors import MlxcelResponseError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._requests import Messages

__all__ = ["Call"]


@dataclass(frozen=True)
class Call:
    """A request, but for the model's name."""

    method: str
    path: str
    body: dict[str, Any] | None = None
    query: Mapping[str, Any] | None = None
    headers: Mapping[str, str] | None = None
    names_model: bool = False

    @property
    def native(self) -> bool:
        """Whether only servers of our kind have it."""
        return not self.path.startswith("/v1/")

    def arguments(self, root: str, model: str | None, cast_to: Any, timeout: Any) -> dict[str, Any]:
        """For the SDK's method of that name."""
        options: dict[str, Any] = {"timeout": timeout}
        if self.query:
            options["params"] = dict(self.query)
        if self.headers:
            options["headers"] = dict(self.headers)
        # The SDK's own base URL ends in /v1, wherever that is.
        url = f"{root}{self.path}" if self.native else self.path.removeprefix("/v1")
        arguments: dict[str, Any] = {"path": url, "cast_to": cast_to, "options": options}
        if self.method == "POST":
            body = self.body or {}
            arguments["body"] = {"model": model, **body} if self.names_model else body
        return arguments


def generating(path: str, body: Mapping[str, Any], params: Mapping[str, Any], **frame: Any) -> Call:
    """A request for text: the parameters are the body's, but for those of the call itself."""
    for name in ("stream", *body):
        if name in params:
            raise TypeError(f"{name} is not a parameter here: streams have methods of their own")
    given = {name: value for name, value in params.items() if value is not None}
    query, headers = given.pop("extra_query", None), given.pop("extra_headers", None)
    extra = given.pop("extra_body", None) or {}
    return Call("POST", path, {**body, **given, **frame, **extra}, query, headers, names_model=True)


def responses(input: Any, params: Mapping[str, Any], **frame: Any) -> Call:  # noqa: A002 - OpenAI's name
    return generating("/v1/responses", {"input": input}, params, **frame)


def messages(messages: Messages, params: Mapping[str, Any], **frame: Any) -> Call:
    return generating("/v1/messages", {"messages": _requests.conversation(messages)}, params, **frame)


def apply_template(messages: Messages, params: Mapping[str, Any]) -> Call:
    call = generating("/apply-template", {"messages": _requests.conversation(messages)}, params)
    return Call(call.method, call.path, call.body, call.query, call.headers)


def count_tokens(messages: Messages, params: Mapping[str, Any]) -> Call:
    body = {"messages": _requests.conversation(messages)}
    return generating("/v1/messages/count_tokens", body, params)


def model(id: str) -> Call:  # noqa: A002
    from urllib.parse import quote

    return Call("GET", f"/v1/models/{quote(id)}")  # a name on the hub has a slash, which stays


def input_items(id: str, **query: Any) -> Call:  # noqa: A002
    given = {name: value for name, value in query.items() if value is not None}
    return Call("GET", response(id, "input_items"), query=given)


def event_type(kind: str | None) -> Any:
    """The SDK's type of a stream's events; plain JSON where it has none."""
    if kind is None:
        return object
    import openai.types.responses

    return getattr(openai.types.responses, kind)


def stream_type(kind: Any, event: Any) -> Any:
    """The SDK's kind of stream, of such events."""
    return kind[event]


def response(id: str, *parts: str) -> str:  # noqa: A002
    """The path of a kept response, or of something of it."""
    from urllib.parse import quote

    return "/".join(("/v1/responses", quote(id, safe=""), *parts))


def dict_of(body: object, route: str) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise MlxcelResponseError(f"the reply of {route} is not a JSON object")
    return body


def list_of(body: object, route: str) -> list[dict[str, Any]]:
    if not isinstance(body, list) or not all(isinstance(entry, dict) for entry in body):
        raise MlxcelResponseError(f"the reply of {route} is not a list of JSON objects")
    return body


def field_of(body: object, route: str, name: str, kind: type) -> Any:
    value = body.get(name) if isinstance(body, dict) else None
    if not isinstance(value, kind):
        raise MlxcelResponseError(f"the reply of {route} has no {name!r} that is {kind.__name__}")
    return value


def text_of(body: object, route: str) -> str:
    if not isinstance(body, str):
        raise MlxcelResponseError(f"the reply of {route} is no text")
    return body
