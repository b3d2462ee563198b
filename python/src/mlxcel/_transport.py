"""HTTP clients for a local server: over a Unix socket or TCP, with nothing taken from the environment."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx2
from anyio.lowlevel import current_token

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

__all__ = ["Endpoint", "async_http_client", "http_client", "to_timeout"]

_CONNECT_SECONDS = 10.0
# As many as the SDK's own client: hundreds of requests may be in flight.
_LIMITS = httpx2.Limits(max_connections=1000, max_keepalive_connections=100)


@dataclass(frozen=True)
class Endpoint:
    """A server to talk to. `api_key` None sends no Authorization header."""

    root_url: str
    v1_url: str
    socket: str | None = None
    api_key: str | None = None


def to_timeout(timeout: float | httpx2.Timeout | None) -> httpx2.Timeout:
    """Explicit limits: connecting is always bounded, a generation only when the caller says so.

    A number bounds, in seconds, each wait for the server: for the connection,
    for room to write and for the next bytes of the answer. An answer that is
    not streamed comes at once at its end, so there it bounds the generation.
    """
    if isinstance(timeout, httpx2.Timeout):
        return timeout
    connect = _CONNECT_SECONDS if timeout is None else min(timeout, _CONNECT_SECONDS)
    return httpx2.Timeout(timeout, connect=connect)


def http_client(
    endpoint: Endpoint, timeout: httpx2.Timeout, transport: httpx2.BaseTransport | None = None
) -> httpx2.Client:
    """A client that knows no proxy, no netrc and no variable; `transport` replaces the connection itself."""
    if transport is None:
        transport = httpx2.HTTPTransport(**_connection(endpoint))
    elif not isinstance(transport, httpx2.BaseTransport):
        raise TypeError(f"LLM wants an httpx2.BaseTransport as transport, not {type(transport).__name__}")
    return httpx2.Client(transport=transport, timeout=timeout, trust_env=False)


def async_http_client(
    endpoint: Endpoint, timeout: httpx2.Timeout, transport: httpx2.AsyncBaseTransport | None = None
) -> httpx2.AsyncClient:
    """The async twin of `http_client`, good for any number of event loops."""
    if transport is None:
        transport = PerLoopTransport(_connection(endpoint))
    elif not isinstance(transport, httpx2.AsyncBaseTransport):
        raise TypeError(
            f"AsyncLLM wants an httpx2.AsyncBaseTransport as transport, not {type(transport).__name__}"
        )
    return httpx2.AsyncClient(transport=transport, timeout=timeout, trust_env=False)


def _connection(endpoint: Endpoint) -> dict[str, Any]:
    settings: dict[str, Any] = {"trust_env": False, "limits": _LIMITS, "uds": endpoint.socket}
    if not endpoint.root_url.startswith("https:"):
        # Loading the CA bundle takes 20 ms, for nothing: no TLS here. This
        # context trusts nobody, so it could not be misused for a redirect.
        settings["verify"] = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return settings


class PerLoopTransport(httpx2.AsyncBaseTransport):
    """A connection pool for each event loop, closed together with its loop.

    A pool's connections belong to the loop they were opened in, and one
    `AsyncLLM` may live through several `asyncio.run` calls.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        self._pools: dict[object, tuple[httpx2.AsyncHTTPTransport, AsyncGenerator[None]]] = {}

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        loop = current_token()
        entry = self._pools.get(loop)
        if entry is None:
            pool = httpx2.AsyncHTTPTransport(**self._settings)
            entry = self._pools[loop] = (pool, self._close_with_loop(loop, pool))
            await anext(entry[1])
        return await entry[0].handle_async_request(request)

    async def aclose(self) -> None:
        entry = self._pools.get(current_token())
        if entry is not None:
            await entry[1].aclose()

    async def _close_with_loop(self, loop: object, pool: httpx2.AsyncHTTPTransport) -> AsyncGenerator[None]:
        # A loop closes the async generators that were started in it before it
        # ends: the only notice of its end that it gives.
        try:
            yield
        finally:
            self._pools.pop(loop, None)
            await pool.aclose()
