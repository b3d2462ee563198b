"""What `LLM` and `AsyncLLM` share: one constructor, one set of rules, no I/O."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ._boundary import boundary
from ._models import ServedModels
from ._options import (
    IDLE_TIMEOUT,
    PRIVATE_ONLY,
    SHUTDOWN_GRACE,
    STARTUP_TIMEOUT,
    check_api_key,
    check_mode,
    check_share,
    named_options,
)
from ._single import Single
from ._state import Restart
from ._timeout import CLIENTS, Timeout, as_timeout, to_httpx2
from ._tool_prompt import as_protocol
from .errors import MlxcelStateError
from .server import ManagedServer

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping, Sequence

    from ._shared import SharedServer
    from ._state import StateChange
    from ._timeout import TimeoutArgument
    from ._tool_prompt import ToolProtocol
    from ._transport import Endpoint

__all__ = ["ClientBase"]

TransportT = TypeVar("TransportT")
HttpClientT = TypeVar("HttpClientT")

PROPS_SECONDS = 10.0
"""Limit for asking how many slots a server has; without an answer there is a default."""

_KEY_VARIABLE = "MLXCEL_API_KEY"

_logger = logging.getLogger("mlxcel.client")


class ClientBase(Single, Generic[TransportT, HttpClientT]):
    """Holds the options of a client and knows which server it is for."""

    _closed = True  # until the constructor is through its checks: __del__ may run before

    @boundary
    @named_options
    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        base_url: str | None = None,
        socket: str | os.PathLike[str] | None = None,
        transport: TransportT | None = None,
        http_client: HttpClientT | None = None,
        api_key: str | None = None,
        binary: str | os.PathLike[str] | None = None,
        host: str | None = None,
        port: int | None = None,
        extra_headers: Mapping[str, str] | None = None,
        verify: bool | str | os.PathLike[str] | ssl.SSLContext = True,
        timeout: float | Timeout | None = None,
        startup_timeout: float = STARTUP_TIMEOUT,
        shutdown_grace: float = SHUTDOWN_GRACE,
        ctx_size: int | None = None,
        n_predict: int | None = None,
        n_parallel: int | None = None,
        alias: str | None = None,
        warmup: bool | None = None,
        extra_args: Sequence[str] = (),
        restart: Restart | None = Restart(),  # noqa: B008 - frozen
        on_state: Callable[[StateChange], object] | None = None,
        progress: bool | None = None,
        share: bool = False,
        idle_timeout: float = IDLE_TIMEOUT,
        tool_protocol: ToolProtocol = "native",
    ) -> None:
        self._tool_protocol = as_protocol(tool_protocol)
        managed: dict[str, Any] = {
            "binary": binary,
            "host": host,
            "port": port,
            "startup_timeout": startup_timeout,
            "shutdown_grace": shutdown_grace,
            "ctx_size": ctx_size,
            "n_predict": n_predict,
            "n_parallel": n_parallel,
            "alias": alias,
            "warmup": warmup,
            "extra_args": extra_args,
            "restart": restart,
            "on_state": on_state,
            "progress": progress,
        }
        sharing = {"share": share, "idle_timeout": idle_timeout}
        self._timeout = as_timeout(timeout)
        check_api_key(api_key)
        socket_path = None if socket is None else os.fspath(socket)
        self._model_argument = None if model is None else os.fspath(model)
        self._connect = check_mode(
            self._model_argument,
            base_url=base_url,
            socket=socket_path,
            transport=transport,
            http_client=http_client,
            http_client_url=str(getattr(http_client, "base_url", "")) or None,
            managed=managed | sharing,
            extra_headers=extra_headers,
            verify=verify,
        )
        if self._connect is not None and api_key is None and not _carries_a_key(http_client):
            api_key = os.environ.get(_KEY_VARIABLE) or None
            check_api_key(api_key, _KEY_VARIABLE)
        check_share(managed | sharing | {"socket": socket_path, "api_key": api_key})
        self._server: ManagedServer | SharedServer | None = None
        if self._model_argument is not None:
            if share:
                from ._shared import SharedServer

                joint = {name: value for name, value in managed.items() if name not in PRIVATE_ONLY}
                self._server = SharedServer(self._model_argument, idle_timeout=idle_timeout, **joint)
            else:
                self._server = ManagedServer(
                    self._model_argument, socket_path=socket_path, api_key=api_key, **managed
                )
        self._api_key = api_key
        self._transport = transport
        self._http_client = http_client
        self._extra_headers = dict(extra_headers or {})
        self._verify = verify
        self._served = ServedModels()
        self._progress = progress
        self._width: int | None = None
        self._closed = False
        self._begin()

    def _begin(self) -> None:
        """Last step of the constructor."""

    @property
    def server(self) -> ManagedServer | SharedServer | None:
        """The server this client started or joined, or None in connect mode."""
        return self._server

    def _endpoint(self) -> Endpoint:
        """Where the server is; a managed one must be ready."""
        from ._transport import Endpoint

        if self._connect is not None:
            where = self._connect
            return Endpoint(
                where.root_url,
                where.v1_url,
                where.socket,
                self._api_key,
                self._extra_headers,
                self._verify,
            )
        if self._server is None:
            raise MlxcelStateError("there is no server")
        url = self._server.base_url
        return Endpoint(url.removesuffix("/v1"), url, self._server.socket_path, self._server.api_key)

    def _opened_at(self, endpoint: Endpoint) -> None:
        """Take over what is known of a server that a client was just made for."""
        self._root_url = endpoint.root_url
        self._where = str(endpoint)
        if self._server is not None and self._server.served_models:
            # It told its models when it proved to be ours: no second request for them.
            self._served.learn(self._server.served_models)
        limits = to_httpx2(self._timeout)
        _logger.debug(
            "%s talks to %s, native routes at %s; timeouts: %s (%r)",
            type(self).__name__,
            self._where,
            self._root_url,
            self._timeout,
            limits,
        )

    def _limits(self, timeout: TimeoutArgument) -> Timeout:
        """The limits of one call."""
        return self._timeout if timeout is CLIENTS else as_timeout(timeout)

    def _check_open(self) -> None:
        if self._closed:
            raise MlxcelStateError(f"this {type(self).__name__} is closed: make a new one")

    def __repr__(self) -> str:
        if self._closed:
            return f"<{type(self).__name__}: closed>"
        where = (
            self._connect.socket or self._connect.v1_url if self._connect is not None else repr(self._server)
        )
        return f"<{type(self).__name__} {where}>"


def _carries_a_key(http_client: object | None) -> bool:
    """A ready-made client with a key of its own keeps that one, whatever the environment says."""
    return "authorization" in getattr(http_client, "headers", ())
