"""What `LLM` and `AsyncLLM` share: one constructor, one set of rules, no I/O."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ._options import SHUTDOWN_GRACE, STARTUP_TIMEOUT, check_api_key, check_mode, check_timeout, named_options
from ._single import Single
from ._state import Restart
from .errors import MlxcelStateError
from .server import ManagedServer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import httpx2

    from ._state import StateChange
    from ._transport import Endpoint

__all__ = ["ClientBase"]

TransportT = TypeVar("TransportT")
HttpClientT = TypeVar("HttpClientT")


class ClientBase(Single, Generic[TransportT, HttpClientT]):
    """Holds the options of a client and knows which server it is for."""

    _closed = True  # until the constructor is through its checks: __del__ may run before

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
        timeout: float | httpx2.Timeout | None = None,
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
    ) -> None:
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
        if isinstance(timeout, int | float):
            check_timeout("timeout", timeout)
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
            managed=managed,
        )
        self._server: ManagedServer | None = None
        if self._model_argument is not None:
            self._server = ManagedServer(
                self._model_argument, socket_path=socket_path, api_key=api_key, **managed
            )
        self._api_key = api_key
        self._transport = transport
        self._http_client = http_client
        self._timeout = timeout
        self._model_id: str | None = None
        self._closed = False
        self._begin()

    def _begin(self) -> None:
        """Last step of the constructor."""

    @property
    def server(self) -> ManagedServer | None:
        """The server this client started, or None in connect mode."""
        return self._server

    def _endpoint(self) -> Endpoint:
        """Where the server is; a managed one must be ready."""
        from ._transport import Endpoint

        if self._connect is not None:
            where = self._connect
            return Endpoint(where.root_url, where.v1_url, where.socket, self._api_key)
        if self._server is None:
            raise MlxcelStateError("there is no server")
        url = self._server.base_url
        return Endpoint(url.removesuffix("/v1"), url, self._server.socket_path, self._server.api_key)

    def _adopt_served_model(self) -> None:
        """A server of ours told its models when it proved to be ours: no second request for them."""
        if self._server is not None and self._server.served_models:
            self._model_id = self._server.served_models[0]

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
