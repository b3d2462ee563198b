"""What the server child is started with: pure functions from options to argv and environment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ._lifeline import LIFELINE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["ServeOptions", "child_environment", "listen_on_port", "listen_on_socket", "serve_command"]


@dataclass(frozen=True)
class ServeOptions:
    """Options of `mlxcel serve`; None leaves one to the server."""

    alias: str | None = None
    ctx_size: int | None = None
    n_predict: int | None = None
    n_parallel: int | None = None
    warmup: bool | None = None
    extra_args: tuple[str, ...] = ()


def serve_command(binary: Path, model: str, listen: Sequence[str], options: ServeOptions) -> list[str]:
    """The argv of `mlxcel serve`. The API key is never in it: every user of a machine can read argv."""
    command = [str(binary), "serve", "-m", model]
    if options.alias is not None:
        command += ["-a", options.alias]
    command += listen
    for flag, value in (
        ("--ctx-size", options.ctx_size),
        ("--n-predict", options.n_predict),
        ("--n-parallel", options.n_parallel),
    ):
        if value is not None:
            command += [flag, str(value)]
    if options.warmup is not None:
        command.append("--warmup" if options.warmup else "--no-warmup")
    return [*command, *options.extra_args]


def listen_on_socket(path: Path) -> list[str]:
    """Flags for a Unix socket: its path goes in as the host, with port 0."""
    return ["--host", str(path), "--port", "0"]


def listen_on_port(host: str, port: int) -> list[str]:
    """Flags for TCP."""
    return ["--host", host, "--port", str(port)]


def child_environment(parent: Mapping[str, str], api_key: str) -> dict[str, str]:
    """The parent's environment without any server option in it, and with our key.

    `LLAMA_ARG_*` configures a server that a person starts; one that we start
    is configured by the arguments of `ManagedServer` alone. A lifeline in the
    parent's environment is the parent's own.
    """
    environment = {
        name: value
        for name, value in parent.items()
        if not name.startswith("LLAMA_ARG_") and name not in ("LLAMA_API_KEY", LIFELINE)
    }
    environment["LLAMA_API_KEY"] = api_key
    return environment
