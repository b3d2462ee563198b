"""The OpenAI SDK's clients, deaf to the environment.

The SDK fills what it is not given from OPENAI_API_KEY, OPENAI_ADMIN_KEY,
OPENAI_ORG_ID, OPENAI_PROJECT_ID, OPENAI_BASE_URL, OPENAI_WEBHOOK_SECRET and
OPENAI_CUSTOM_HEADERS, again on every `copy()` or `with_options()`. Those belong
to api.openai.com and must not reach another server, so the subclasses here
put back what the caller gave. Nor does a server learn the system and the
interpreter that it is asked from, which the SDK would tell in each request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import openai

from ._version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx2

    from ._transport import Endpoint

__all__ = ["AsyncLocalOpenAI", "LocalOpenAI", "async_client", "sync_client"]

_NO_KEY = "no-key"
"""Stands for "no key" where the SDK insists on one; never sent."""

_USER_AGENT = f"mlxcel-python/{__version__}"


class LocalOpenAI(openai.OpenAI):
    """`openai.OpenAI` that takes nothing from the environment."""

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
    return LocalOpenAI(
        api_key=endpoint.api_key,
        base_url=endpoint.v1_url,
        http_client=http_client,
        timeout=timeout,
        default_headers=endpoint.headers,
        max_retries=0,
    )


def async_client(
    endpoint: Endpoint, http_client: httpx2.AsyncClient, timeout: httpx2.Timeout
) -> AsyncLocalOpenAI:
    """The async twin of `sync_client`."""
    return AsyncLocalOpenAI(
        api_key=endpoint.api_key,
        base_url=endpoint.v1_url,
        http_client=http_client,
        timeout=timeout,
        default_headers=endpoint.headers,
        max_retries=0,
    )
