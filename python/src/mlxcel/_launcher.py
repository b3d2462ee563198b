"""What stays the same when a server is started again: its binary, address, key, model and options."""

from __future__ import annotations

import functools
import os
import re
import secrets
import shutil
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from . import _records
from ._binary import find_binary
from ._command import (
    ServeOptions,
    child_environment,
    listen_on_port,
    listen_on_socket,
    serve_command,
)
from ._probe import Address, Probe
from ._process import ServerProcess
from ._socket_path import SocketFile, private_directory, refuse_taken_path, socket_in, sweep
from .errors import MlxcelStateError

if TYPE_CHECKING:
    from pathlib import Path

    from ._drain import Tail

__all__ = ["Launcher", "Plan"]

_PORT_TAKEN = re.compile(r"\b(already|address) in use\b|EADDRINUSE|os error (98|48|10048)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Plan:
    """What the caller asked for. `port` 0 picks a free one; no `socket_path` means a private folder."""

    model: str
    binary: str | os.PathLike[str] | None = None
    tcp: bool = False
    host: str = "127.0.0.1"
    port: int = 0
    socket_path: Path | None = None
    api_key: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    options: ServeOptions = field(default_factory=ServeOptions)
    grace: float = 10.0


class Launcher:
    """Starts processes for one plan, all at the address that the first one got, until `close`."""

    def __init__(self, plan: Plan, log: Tail) -> None:
        self.plan = plan
        self._log = log
        self._folder: Path | None = None
        self._socket: SocketFile | None = None
        self._open = False
        self.address: Address | None = None

    @property
    def private(self) -> bool:
        """Whether nobody else can listen at the address."""
        return self._folder is not None

    def probe(self) -> Probe:
        """To ask the server at the address."""
        if self.address is None:
            raise MlxcelStateError("the server has no address yet: call start() first")
        return Probe(self.address, self.plan.api_key)

    def launch(self) -> ServerProcess:
        """Start a process. The file of an earlier one's socket is removed first, if it still is that one."""
        plan = self.plan
        binary = find_binary(plan.binary)
        if not self._open or self.address is None:
            self.address = self._choose_address()
            self._open = True
        address = self.address
        if address.socket_path is None:
            listen = listen_on_port(address.host, address.port)
        else:
            self.forget_socket()
            if self._folder is not None:
                self._folder.mkdir(mode=0o700, exist_ok=True)  # a cleaner of old files may have taken it
            refuse_taken_path(address.socket_path)
            listen = listen_on_socket(address.socket_path)
        process = ServerProcess(
            serve_command(binary, plan.model, listen, plan.options),
            child_environment(os.environ, plan.api_key),
            grace=plan.grace,
            folder=self._folder,
            secret=plan.api_key,
            log=self._log,
        )
        _records.write(_records.Record.of(process.pid, address=str(address), model=plan.model, binary=binary))
        process.call_at_exit(functools.partial(_records.remove, process.pid))
        return process

    def adopt_socket(self) -> None:
        """Remember the socket that the server has made, so that this one alone is removed later."""
        if self.address is not None and self.address.socket_path is not None:
            self._socket = SocketFile(self.address.socket_path)

    def forget_socket(self) -> None:
        """Remove the socket that a server which is gone has left behind."""
        if self._folder is not None and self.address is not None and self.address.socket_path is not None:
            SocketFile(self.address.socket_path).remove()  # nobody else can have put one there
        elif self._socket is not None:
            self._socket.remove()
        self._socket = None

    def lost_its_port(self, error: Exception) -> bool:
        """Whether a port that was free when we picked it was taken before the server could bind it."""
        picked = self.plan.tcp and not self.plan.port
        return picked and _PORT_TAKEN.search(getattr(error, "stderr_tail", "")) is not None

    def forget_port(self) -> None:
        """Pick another port next time."""
        self._open = False

    def close(self) -> None:
        """Remove what the servers left behind. The address stays known until the next launch."""
        self.forget_socket()
        self._open = False
        _records.sweep()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            sweep(self._folder.parent)
            self._folder = None

    def _choose_address(self) -> Address:
        plan = self.plan
        if plan.tcp:
            return Address(host=plan.host, port=plan.port or _free_port(plan.host))
        if plan.socket_path is not None:
            return Address(socket_path=plan.socket_path)
        self._folder = private_directory()
        return Address(socket_path=socket_in(self._folder))


def _free_port(host: str) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
