"""`python -m mlxcel ps`: which servers of this user run."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from ._process_list import Listed, list_servers
from ._units import age, size

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

__all__ = ["add_arguments", "main", "table"]

_HEADER = ("PID", "MODEL", "ADDRESS", "OWNER", "UPTIME", "MEMORY")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON array for scripts")


def main(options: argparse.Namespace) -> int:
    servers = list_servers()
    if options.json:
        print(json.dumps([asdict(server) for server in servers], indent=2))
    elif servers:
        print(table(servers))
    else:
        print("no server of yours runs")
    return 0


def table(servers: Sequence[Listed]) -> str:
    """One line a server, under a line of headings."""
    rows = [_HEADER, *(_row(server) for server in servers)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _row(server: Listed) -> tuple[str, ...]:
    return (
        str(server.pid),
        server.model or "?",
        server.address or "?",
        _owner(server),
        "?" if server.uptime is None else age(server.uptime),
        "?" if server.memory is None else size(server.memory),
    )


def _owner(server: Listed) -> str:
    if server.foreign:
        return "foreign"
    if server.shared:
        users = "? users" if server.users is None else f"{server.users} user{'s' * (server.users != 1)}"
        return f"shared ({users})"
    if server.owner == "gone":
        return f"gone (was {server.owner_pid})"
    return f"{server.owner or 'python'} ({server.owner_pid})"
