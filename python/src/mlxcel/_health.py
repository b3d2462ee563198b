"""Asks a starting server how far it is, with as little machinery as possible.

This runs while the SDK may not be imported yet, so it speaks HTTP through the
standard library. One probe is one connection.
"""

from __future__ import annotations

import json
import socket
import time
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Any

from ._process import describe_exit
from .errors import MlxcelServerError, MlxcelTimeoutError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from pathlib import Path

    from ._process import ServerProcess

__all__ = ["Address", "Health", "Probe", "wait_until_ready"]

_SHORTEST_PAUSE = 0.002
_LONGEST_PAUSE = 0.05
_PAUSE_SHARE = 0.05  # of the time waited so far: polling adds at most this much to a start
_ANSWER_TIMEOUT = 5.0
_FIRST_PATIENCE = 0.25  # a stranger on our port may never answer, and our child's exit must not wait for it
_BODY_LIMIT = 1 << 20


@dataclass(frozen=True)
class Address:
    """Where a server listens: a Unix socket, or a host and a port."""

    socket_path: Path | None = None
    host: str = "127.0.0.1"
    port: int = 0

    @property
    def root_url(self) -> str:
        if self.socket_path is not None:
            return "http://localhost"
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - only read
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def __str__(self) -> str:
        return f"unix:{self.socket_path}" if self.socket_path is not None else self.root_url


@dataclass(frozen=True)
class Health:
    """One answer of `/health`, or the lack of one."""

    ready: bool = False
    stage: str | None = None
    progress: float | None = None

    @classmethod
    def read(cls, status: int, body: object) -> Health:
        fields: dict[str, Any] = body if isinstance(body, dict) else {}
        stage, progress = fields.get("stage"), fields.get("progress")
        return cls(
            ready=status == 200,
            stage=stage if isinstance(stage, str) else None,
            progress=float(progress) if isinstance(progress, int | float) else None,
        )


class _UnixConnection(HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.sock.settimeout(self.timeout)
            self.sock.connect(self._path)
        except BaseException:
            self.sock.close()
            raise


class Probe:
    """Small authenticated GETs to one address."""

    def __init__(self, address: Address, api_key: str) -> None:
        self.address = address
        self._api_key = api_key
        self._patience = _FIRST_PATIENCE

    def get(
        self, path: str, *, timeout: float = _ANSWER_TIMEOUT, key: str | None = None
    ) -> tuple[int, object]:
        """Status and JSON body (None when it is not JSON). OSError or HTTPException when nobody answers."""
        connection = self._connection(timeout)
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {key or self._api_key}"})
            response = connection.getresponse()
            raw = response.read(_BODY_LIMIT)
        finally:
            connection.close()
        try:
            return response.status, json.loads(raw)
        except ValueError:
            return response.status, None

    def health(self, *, timeout: float) -> Health:
        """A server that does not answer (yet) is simply not ready."""
        try:
            return Health.read(*self.get("/health", timeout=min(timeout, self._patience)))
        except TimeoutError:
            self._patience = min(self._patience * 2, _ANSWER_TIMEOUT)
            return Health()
        except (OSError, HTTPException):
            return Health()

    def _connection(self, timeout: float) -> HTTPConnection:
        if self.address.socket_path is not None:
            return _UnixConnection(str(self.address.socket_path), timeout)
        url = self.address.root_url.removeprefix("http://")
        host, _, port = url.rpartition(":")
        return HTTPConnection(host.strip("[]"), int(port), timeout=timeout)


def wait_until_ready(
    process: ServerProcess,
    probe: Probe,
    *,
    timeout: float,
    aborted: threading.Event,
    address_is_ours: Callable[[], bool],
) -> list[str]:
    """Poll until the server can answer and is proven to be ours; returns the ids of the models it serves.

    Raises MlxcelServerError at once when the child ends, MlxcelTimeoutError
    when `timeout` seconds pass in which neither stage nor progress changes.
    """
    began = time.monotonic()
    seen = Health()
    deadline = began + timeout
    while True:
        code = process.poll()
        if code is not None:
            raise exited(process, code)
        if aborted.is_set():
            raise MlxcelServerError(
                "the server was stopped while it started", stderr_tail=process.stderr_tail()
            )
        health = probe.health(timeout=max(deadline - time.monotonic(), 0.01))
        if health.ready:
            models = _served_models(process, probe, stranger_possible=not address_is_ours())
            if models is not None:
                return models
        if health != seen:
            seen = health
            deadline = time.monotonic() + timeout
        now = time.monotonic()
        if now >= deadline:
            raise _stuck(process, probe, seen, timeout)
        process.wait(min(max((now - began) * _PAUSE_SHARE, _SHORTEST_PAUSE), _LONGEST_PAUSE))


def exited(process: ServerProcess, code: int) -> MlxcelServerError:
    """The error for a child that ended while it started."""
    tail = process.stderr_tail(final=True)
    said = f":\n{tail}" if tail else " and wrote nothing to stderr"
    return MlxcelServerError(
        f"the mlxcel server {describe_exit(code)} while it started{said}", stderr_tail=tail, exit_code=code
    )


def _served_models(process: ServerProcess, probe: Probe, *, stranger_possible: bool) -> list[str] | None:
    """Ids from `/v1/models`, which only a server with our key gives us; None to ask again.

    On a port that a stranger may hold, accepting our key proves nothing unless
    another key is refused.
    """
    try:
        status, body = probe.get("/v1/models")
        if (
            status == 200
            and stranger_possible
            and probe.get("/v1/models", key="not-the-key")[0] not in (401, 403)
        ):
            status = 0
    except (OSError, HTTPException):
        return None  # it went away in between: the next round finds out why
    code = process.poll()
    if code is not None:
        raise exited(process, code)
    if status == 503:
        return None
    if status != 200:
        why = "takes any key" if status == 0 else f"answered {status} to our key"
        raise MlxcelServerError(
            f"what listens at {probe.address} is not the server that was started: it {why}; "
            "choose another port, or leave `port` out",
            stderr_tail=process.stderr_tail(),
        )
    entries = body.get("data") if isinstance(body, dict) else None
    return [
        entry["id"]
        for entry in (entries if isinstance(entries, list) else [])
        if isinstance(entry, dict) and isinstance(entry.get("id"), str)
    ]


def _stuck(process: ServerProcess, probe: Probe, seen: Health, timeout: float) -> MlxcelTimeoutError:
    if seen == Health():
        state = f"nothing answered at {probe.address}"
    else:
        done = "" if seen.progress is None else f" at {seen.progress:.0%}"
        state = f"it stayed in stage {seen.stage!r}{done}"
    tail = process.stderr_tail()
    said = f"\nIts last lines:\n{tail}" if tail else ""
    return MlxcelTimeoutError(
        f"the mlxcel server made no progress for {timeout:g} s while it started: {state}; "
        f"raise startup_timeout if it only needs longer{said}",
        stderr_tail=tail,
    )
