"""A server in this process that does what a test says, on one TCP port."""

from __future__ import annotations

import sys
import threading
from collections import deque
from http.server import ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from ._exchange import Exchange, Recorded
from ._replies import HangUp, Refuse, Reply, Stall

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType

    from ._replies import Fault

__all__ = ["FixtureServer", "Script"]

Step: TypeAlias = "str | Reply | Fault"
Script: TypeAlias = "Step | Iterable[Step] | Callable[[Exchange], Step | None]"

_RECORDED = 10_000


class FixtureServer:
    """Speaks the routes that `LLM` asks. Run it in a `with`.

    `script` says what becomes of each request for text: a string or a `Reply` answers them all alike, a
    fault (`Refuse`, `HangUp`, `Stall`) befalls them all; a list or another iterable of those has one for
    each request in the order they come, and a request too many is refused with status 500; a function gets
    each `Exchange` and returns one of those, or answers by itself and returns None (it also gets requests
    for routes that are not known here). Without, the last message or the prompt is sent back.

    `models` are what `/v1/models` lists (None leaves that route to the script too), `slots` is what `/props`
    tells (None: it has no such route), and `api_key` is the key it then wants.
    """

    def __init__(
        self,
        script: Script | None = None,
        *,
        models: tuple[str, ...] | None = ("m",),
        slots: int | None = None,
        api_key: str | None = None,
    ) -> None:
        self._script: Script | None = None
        self._steps: Iterator[Step] | None = None
        self._lock = threading.Lock()
        self.script = script
        self.models = models
        self.slots = slots
        self.api_key = api_key
        self.requests: deque[Recorded] = deque(maxlen=_RECORDED)
        """Requests that came to the script, the last ones."""
        self.left = threading.Semaphore(0)
        """Released for each client that went away before its answer was complete."""
        handler = type("Handler", (Exchange,), {"server_of": self})
        self._http = _Http(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def script(self) -> Script | None:
        """What becomes of the requests from now on."""
        return self._script

    @script.setter
    def script(self, script: Script | None) -> None:
        with self._lock:
            self._script = script
            self._steps = _steps_of(script)

    @property
    def base_url(self) -> str:
        """For `LLM(base_url=…)`."""
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def answer(self, exchange: Exchange) -> None:
        """Answer a request; called in a thread of its connection."""
        if self.api_key is not None and exchange.headers.get("Authorization") != f"Bearer {self.api_key}":
            exchange.play(Refuse(401, "wrong key", "invalid_api_key"))
        elif exchange.path == "/v1/models" and self.models is not None:
            exchange.json(200, {"object": "list", "data": [{"id": name} for name in self.models]})
        elif exchange.path == "/props" and self.slots is not None:
            exchange.json(200, {"total_slots": self.slots})
        else:
            self.requests.append(Recorded(exchange.path, exchange.headers, exchange.body))
            step = self._next(exchange)
            if step is not None:
                exchange.play(step)

    def _next(self, exchange: Exchange) -> Step | None:
        if callable(self._script):
            return self._script(exchange)
        if exchange.prompt is None:
            return Refuse(404, f"the fixture server has no {exchange.path}: give it a function as script")
        if self._steps is not None:
            with self._lock:
                return next(self._steps, Refuse(500, "the script of the fixture server is used up"))
        script: Any = self._script
        return str(exchange.prompt) if script is None else script

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


def _steps_of(script: Script | None) -> Iterator[Step] | None:
    if script is None or callable(script) or isinstance(script, str | Reply | Refuse | HangUp | Stall):
        return None
    return iter(script)


class _Http(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # a client that went away is no news
            super().handle_error(request, client_address)
