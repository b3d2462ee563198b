"""The OpenAI SDK's clients, deaf to the environment.

The SDK fills what it is not given from OPENAI_API_KEY, OPENAI_ADMIN_KEY,
OPENAI_ORG_ID, OPENAI_PROJECT_ID, OPENAI_BASE_URL, OPENAI_WEBHOOK_SECRET and
OPENAI_CUSTOM_HEADERS, again on every `copy()` or `with_options()`. Those belong
to api.openai.com and must not reach another server, so the subclasses here
put back what the caller gave. Nor does a server learn the system and the
interpreter that it is asked from, which the SDK would tell in each request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import httpx2
import openai

from ._transport import AsyncLocalClient, LocalClient
from ._version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._transport import Endpoint

__all__ = ["AsyncLocalOpenAI", "LocalOpenAI", "async_client", "headers_of", "sync_client"]

_NO_KEY = "no-key"
"""Stands for "no key" where the SDK insists on one; never sent."""

SteadyHeaders: TypeAlias = "list[tuple[bytes, bytes]] | None"
"""What each request for text carries; None where the HTTP client is the caller's, whose own may change."""

_USER_AGENT = f"mlxcel-python/{__version__}"


class LocalOpenAI(openai.OpenAI):
    """`openai.OpenAI` that takes nothing from the environment."""

    steady_headers: SteadyHeaders = None

    def __init__(
        self,
        *,
        api_key: Any = None,
        admin_api_key: str | None = None,
        organization: str | None = None,
        project: str | None = None,
        webhook_secret: str | None = None,
        default_headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(api_key=api_key or _NO_KEY, default_headers=default_headers, **options)
        self.admin_api_key = admin_api_key
        self.organization = organization
        self.project = project
        self.webhook_secret = webhook_secret
        self._custom_headers = dict(default_headers or {})

    @property
    def user_agent(self) -> str:
        return _USER_AGENT

    def platform_headers(self) -> dict[str, str]:
        return {}

    def _auth_headers(self, security: Any) -> dict[str, str]:
        return {} if self.api_key == _NO_KEY else super()._auth_headers(security)

    def _validate_headers(self, headers: Any, custom_headers: Any) -> None:
        pass  # a request without a key is fine: the server may want none, or `http_client` has one


class AsyncLocalOpenAI(openai.AsyncOpenAI):
    """`openai.AsyncOpenAI` that takes nothing from the environment."""

    steady_headers: SteadyHeaders = None

    def __init__(
        self,
        *,
        api_key: Any = None,
        admin_api_key: str | None = None,
        organization: str | None = None,
        project: str | None = None,
        webhook_secret: str | None = None,
        default_headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(api_key=api_key or _NO_KEY, default_headers=default_headers, **options)
        self.admin_api_key = admin_api_key
        self.organization = organization
        self.project = project
        self.webhook_secret = webhook_secret
        self._custom_headers = dict(default_headers or {})

    @property
    def user_agent(self) -> str:
        return _USER_AGENT

    def platform_headers(self) -> dict[str, str]:
        return {}

    def _auth_headers(self, security: Any) -> dict[str, str]:
        return {} if self.api_key == _NO_KEY else super()._auth_headers(security)

    def _validate_headers(self, headers: Any, custom_headers: Any) -> None:
        pass  # see LocalOpenAI


def sync_client(endpoint: Endpoint, http_client: httpx2.Client, timeout: httpx2.Timeout) -> LocalOpenAI:
    """The SDK on our transport. No retries: a repeated generation queues behind the one still running."""
    client = LocalOpenAI(
        api_key=endpoint.api_key,
        base_url=endpoint.v1_url,
        http_client=http_client,
        timeout=timeout,
        default_headers=endpoint.headers,
        max_retries=0,
    )
    client.steady_headers = _steady(client, http_client)
    return client


def async_client(
    endpoint: Endpoint, http_client: httpx2.AsyncClient, timeout: httpx2.Timeout
) -> AsyncLocalOpenAI:
    """The async twin of `sync_client`."""
    client = AsyncLocalOpenAI(
        api_key=endpoint.api_key,
        base_url=endpoint.v1_url,
        http_client=http_client,
        timeout=timeout,
        default_headers=endpoint.headers,
        max_retries=0,
    )
    client.steady_headers = _steady(client, http_client)
    return client


def headers_of(
    client: LocalOpenAI | AsyncLocalOpenAI, extra: Mapping[str, str | openai.Omit] | None = None
) -> httpx2.Headers:
    """The SDK's headers of a request, and those of one call, which win."""
    given = {**client._auth_headers({"bearer_auth": True}), **client.default_headers}
    headers = httpx2.Headers({name: value for name, value in given.items() if isinstance(value, str)})
    for name, value in (extra or {}).items():
        if isinstance(value, openai.Omit):
            headers.pop(name, None)
        else:
            headers[name] = value
    return headers


def _steady(
    client: LocalOpenAI | AsyncLocalOpenAI, http_client: httpx2.Client | httpx2.AsyncClient
) -> SteadyHeaders:
    if not isinstance(http_client, LocalClient | AsyncLocalClient):
        return None
    headers = httpx2.Headers(http_client.headers)
    headers.update(headers_of(client))
    headers.setdefault("host", client.base_url.netloc.decode("ascii"))
    return headers.raw
