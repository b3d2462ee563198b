"""`python -m mlxcel`: tools around servers. (The command `mlxcel` is the server itself.)"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from ._version import __version__

_COMMANDS = {
    "batch": ("_batch", "answer a file of prompts, and go on where an earlier run ended"),
    "doctor": ("_doctor", "find out what is wrong with an installation or a server"),
    "ps": ("_ps", "list your servers"),
    "stop": ("_stop", "end servers that this package started"),
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; its exit status."""
    parser = argparse.ArgumentParser(prog="python -m mlxcel", description=__doc__, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"mlxcel {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (home, summary) in _COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        module = import_module(f".{home}", __package__)
        module.add_arguments(command)
        command.set_defaults(run=module.main)
    options = parser.parse_args(arguments)
    from .errors import MlxcelError

    try:
        status: int = options.run(options)
    except MlxcelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return status


if __name__ == "__main__":
    sys.exit(main())
