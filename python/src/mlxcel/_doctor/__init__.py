"""`python -m mlxcel doctor`: what is wrong with an installation, a model or a server, in plain words."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from ._check import Check, Status, report, skip, text

if TYPE_CHECKING:
    import argparse

__all__ = ["add_arguments", "examine", "main"]

_STARTUP_TIMEOUT = 600.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", metavar="M", help="folder, owner/name, or the built-in mlxcel-tiny (the default)"
    )
    parser.add_argument("--binary", metavar="B", help="the server binary to look at")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--socket", metavar="S", help="look at the server that listens on this Unix socket")
    where.add_argument("--base-url", metavar="U", help="look at the server at this address")
    parser.add_argument(
        "--startup-timeout",
        type=float,
        default=_STARTUP_TIMEOUT,
        metavar="SECONDS",
        help="how long a start may go without progress (default: %(default)g)",
    )
    parser.add_argument("--json", action="store_true", help="a JSON report for scripts")
    parser.epilog = (
        "Exit status: 0 when it works, 1 when something does not. The key of a server that runs is "
        "taken from the variable MLXCEL_API_KEY."
    )


def main(options: argparse.Namespace) -> int:
    checks = examine(
        model=options.model,
        binary=options.binary,
        socket=options.socket,
        base_url=options.base_url,
        startup_timeout=options.startup_timeout,
    )
    print(json.dumps(report(checks), indent=2) if options.json else text(checks))
    return 1 if any(check.status is Status.FAIL for check in checks) else 0


def examine(
    *,
    model: str | None = None,
    binary: str | None = None,
    socket: str | None = None,
    base_url: str | None = None,
    startup_timeout: float = _STARTUP_TIMEOUT,
) -> list[Check]:
    """Every check that makes sense, in the order in which one thing needs the other."""
    from ._environment import check_environment
    from ._python import check_packages, check_python

    checks = [check_python(), check_packages(), check_environment(os.environ)]
    if socket is None and base_url is None:
        return checks + _examine_installation(model or "mlxcel-tiny", binary, startup_timeout)
    return checks + _examine_server(socket, base_url, model)


def _examine_installation(model: str, binary: str | None, startup_timeout: float) -> list[Check]:
    from ._installation import check_binary, check_libmlx
    from ._model import check_memory, check_model, find_folder
    from ._roundtrip import check_start
    from ._sockets import check_folders

    found, path, loaded = check_binary(binary)
    checks = [found, check_libmlx(path, loaded), *check_folders()]
    if path is None and model == "mlxcel-tiny":
        checks.append(skip("model", "the built-in model comes with the server"))
        weights = None
    else:
        looked, weights = check_model(model, find_folder(model, path))
        checks.append(looked)
    checks.append(check_memory(weights))
    ills = [check.name for check in checks if check.status is Status.FAIL]
    if path is None or ills:
        return [*checks, skip("start", f"first {', '.join(ills)}")]
    return checks + check_start(model, path, startup_timeout)


def _examine_server(socket: str | None, base_url: str | None, model: str | None) -> list[Check]:
    from ._roundtrip import check_connection
    from ._sockets import check_socket

    checks = [] if socket is None else [check_socket(socket)]
    if any(check.status is Status.FAIL for check in checks):
        return [*checks, skip("connection", "first the socket")]
    return checks + check_connection(socket=socket, base_url=base_url, model=model)
