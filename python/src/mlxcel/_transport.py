"""HTTP clients for a local server: over a Unix socket or TCP, with nothing taken from the environment."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2

from ._connections import PerLoopTransport, PerProcessTransport
from ._supervised import AsyncSupervisedTransport, SupervisedTransport
from .errors import MlxcelConfigError

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from ._server_protocol import Server

__all__ = ["AsyncLocalClient", "Endpoint", "LocalClient", "async_http_client", "http_client", "tls_context"]


@dataclass(frozen=True)
class Endpoint:
    """A server to talk to. `api_key` None sends no Authorization header."""

    root_url: str
    v1_url: str
    socket: str | None = None
    api_key: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    verify: bool | str | os.PathLike[str] | ssl.SSLContext = True

    def __str__(self) -> str:
        return self.v1_url if self.socket is None else f"unix:{self.socket}"


def http_client(
    endpoint: Endpoint,
    timeout: httpx2.Timeout,
    transport: httpx2.BaseTransport | None = None,
    server: Server | None = None,
) -> httpx2.Client:
    """A client that knows no proxy, no netrc and no variable; `transport` replaces the connection itself.

    With a `server` of ours, requests wait for it while it is restarted.
    """
    if transport is None:
        transport = PerProcessTransport(*_pool_settings(endpoint))
    elif not isinstance(transport, httpx2.BaseTransport):
        raise TypeError(f"LLM wants an httpx2.BaseTransport as transport, not {type(transport).__name__}")
    if server is not None:
        transport = SupervisedTransport(transport, server)
    return LocalClient(transport, timeout)


def async_http_client(
    endpoint: Endpoint,
    timeout: httpx2.Timeout,
    transport: httpx2.AsyncBaseTransport | None = None,
    server: Server | None = None,
) -> httpx2.AsyncClient:
    """The async twin of `http_client`, good for any number of event loops."""
    if transport is None:
        transport = PerLoopTransport(*_pool_settings(endpoint))
    elif not isinstance(transport, httpx2.AsyncBaseTransport):
        raise TypeError(
            f"AsyncLLM wants an httpx2.AsyncBaseTransport as transport, not {type(transport).__name__}"
        )
    if server is not None:
        transport = AsyncSupervisedTransport(transport, server)
    return AsyncLocalClient(transport, timeout)


class LocalClient(httpx2.Client):
    """Sends streams past the steps for credentials, cookies, redirects and hooks: it has none.

    Every request for text is one here (see `_create`); the SDK's others go the whole way.
    """

    def __init__(self, transport: httpx2.BaseTransport, timeout: httpx2.Timeout) -> None:
        super().__init__(transport=transport, timeout=timeout, trust_env=False)
        self._way = transport

    def send(self, request: httpx2.Request, *, stream: bool = False, **options: Any) -> httpx2.Response:
        if options or not stream or self.is_closed:
            return super().send(request, stream=stream, **options)
        try:
            response = self._way.handle_request(request)
        except httpx2.RequestError as error:
            error.request = request
            raise
        response.request = request
        return response


class AsyncLocalClient(httpx2.AsyncClient):
    """The async twin of `LocalClient`."""

    def __init__(self, transport: httpx2.AsyncBaseTransport, timeout: httpx2.Timeout) -> None:
        super().__init__(transport=transport, timeout=timeout, trust_env=False)
        self._way = transport

    async def send(self, request: httpx2.Request, *, stream: bool = False, **options: Any) -> httpx2.Response:
        if options or not stream or self.is_closed:
            return await super().send(request, stream=stream, **options)
        try:
            response = await self._way.handle_async_request(request)
        except httpx2.RequestError as error:
            error.request = request
            raise
        response.request = request
        return response


def tls_context(verify: bool | str | os.PathLike[str] | ssl.SSLContext) -> ssl.SSLContext:
    """What `verify` means: the system's authorities, none at all, a file or folder of them, or a context."""
    if isinstance(verify, ssl.SSLContext):
        return verify
    if verify is True:
        return httpx2.create_ssl_context(trust_env=False)
    if verify is False:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    path = Path(verify)
    try:
        if path.is_dir():
            return ssl.create_default_context(capath=str(path))
        return ssl.create_default_context(cafile=str(path))
    except OSError as error:  # an ssl.SSLError too
        raise MlxcelConfigError(
            f"verify={str(verify)!r} is no file or folder of certificates: {error}"
        ) from None


def _pool_settings(endpoint: Endpoint) -> tuple[str | None, ssl.SSLContext]:
    # Loading the authorities takes 20 ms, for nothing where there is no TLS. The
    # context then trusts nobody, so it could not be misused for a redirect.
    tls = endpoint.root_url.startswith("https:")
    context = tls_context(endpoint.verify) if tls else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["http/1.1"])
    return endpoint.socket, context
