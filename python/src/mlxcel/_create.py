"""The SDK's `create` for text, without its machinery: same requests, same errors, same streams.

What the SDK does between `create` and the HTTP client, and from there to an object, takes longer than
sending and reading. Left out are its pass over the types of each body, its retries, and the objects of
whole replies, which `Reply` makes when they are asked for.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import httpx2
import openai
from openai.types import Completion
from openai.types.chat import ChatCompletionChunk

from ._reply import Reply
from ._sdk import headers_of

if TYPE_CHECKING:
    from ._sdk import AsyncLocalOpenAI, LocalOpenAI

__all__ = ["create", "create_async"]

_CODED = "content-encoding"

Route: TypeAlias = Literal["completions", "chat"]

_ROUTES: dict[Route, tuple[str, Any]] = {
    "completions": ("completions", Completion),
    "chat": ("chat/completions", ChatCompletionChunk),
}
"""Path below `/v1`, and the SDK's type of a piece of a streamed reply."""


def create(client: LocalOpenAI, route: Route, **arguments: Any) -> Any:
    """A `Reply`, or with `stream` the SDK's `Stream`. Raises what the SDK and the HTTP client do."""
    stream = arguments.get("stream", False)
    http = client._client
    response = http.send(_request(client, http, route, arguments), stream=True)
    if not response.is_success:
        response.read()
        raise client._make_status_error_from_response(response)
    if stream:
        return openai.Stream(cast_to=_ROUTES[route][1], response=response, client=client)
    if _CODED in response.headers or not isinstance(response.stream, httpx2.SyncByteStream):
        return _reply(response, response.read(), route)
    try:  # httpx2's own way to the bytes is a long one
        return _reply(response, b"".join(response.stream), route)
    finally:
        response.close()


async def create_async(client: AsyncLocalOpenAI, route: Route, **arguments: Any) -> Any:
    """The async twin of `create`."""
    stream = arguments.get("stream", False)
    http = client._client
    response = await http.send(_request(client, http, route, arguments), stream=True)
    if not response.is_success:
        await response.aread()
        raise client._make_status_error_from_response(response)
    if stream:
        return openai.AsyncStream(cast_to=_ROUTES[route][1], response=response, client=client)
    if _CODED in response.headers or not isinstance(response.stream, httpx2.AsyncByteStream):
        return _reply(response, await response.aread(), route)
    try:
        return _reply(response, b"".join([part async for part in response.stream]), route)
    finally:
        await response.aclose()


def _request(
    client: LocalOpenAI | AsyncLocalOpenAI,
    http: httpx2.Client | httpx2.AsyncClient,
    route: Route,
    arguments: dict[str, Any],
) -> httpx2.Request:
    timeout: httpx2.Timeout = arguments.pop("timeout")
    headers = arguments.pop("extra_headers", None)
    query = arguments.pop("extra_query", None)
    extra = arguments.pop("extra_body", None)
    url = _url(client.base_url, _ROUTES[route][0])
    content = _JSON.encode({**arguments, **extra} if extra else arguments).encode()
    if client.steady_headers is not None and not headers and not query:
        return httpx2.Request(
            "POST",
            url,
            headers=[*client.steady_headers, (b"Content-Length", b"%d" % len(content))],
            stream=httpx2.ByteStream(content),
            extensions={"timeout": timeout.as_dict()},
        )
    return http.build_request(
        "POST",
        url,
        content=content,
        headers=headers_of(client, headers),
        params=None if query is None else client.qs.stringify(query),
        timeout=timeout,
    )


@lru_cache(maxsize=64)
def _url(base: httpx2.URL, path: str) -> httpx2.URL:
    return base.copy_with(raw_path=base.raw_path + path.encode())


def _reply(response: httpx2.Response, content: bytes, route: Route) -> Any:
    try:
        body = json.loads(content)
    except ValueError:
        if response.headers.get("content-type", "").partition(";")[0].strip().endswith("json"):
            raise
        return content.decode(errors="replace")
    return Reply(body, route, response.headers.get("x-request-id")) if isinstance(body, dict) else body


def _plain(value: Any) -> Any:
    """What may stand in a body beside JSON's own types: as the SDK has it."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", by_alias=True, exclude_unset=True)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise TypeError(f"a {type(value).__name__} cannot be sent as JSON")


_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_plain)
