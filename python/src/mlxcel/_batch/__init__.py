"""`python -m mlxcel batch`: a file of prompts in, a file of answers out, and on from where a run ended."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from .._timeout import CLIENTS
from ..errors import MlxcelConfigError, MlxcelConnectionError, MlxcelError, MlxcelServerCrashedError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable, Iterator

    from ..llm import LLM
    from ..results import Result
    from ._lines import Line
    from ._output import Done, Output

__all__ = ["add_arguments", "main"]

_ATTEMPTS = 3
"""Times to send a line whose request died with its server, or with the connection."""
_LEFT_ERRORS = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", type=Path, metavar="IN", help="JSON lines, each with a prompt or messages")
    parser.add_argument("output", type=Path, metavar="OUT", help="JSON lines; an earlier run's is continued")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--model", metavar="M", help="start a server: a folder, owner/name, or mlxcel-tiny")
    where.add_argument("--socket", metavar="S", help="ask the server that listens on this Unix socket")
    where.add_argument("--base-url", metavar="U", help="ask the server at this address")
    parser.add_argument(
        "--concurrency",
        type=int,
        metavar="N",
        help="most requests at once (default: four times the server's slots)",
    )
    parser.epilog = (
        "Exit status: 0 when every line is answered; 1 when it could not go on to the end: run it again; "
        f"{_LEFT_ERRORS} when it came to the end and some records are errors. The key of a server that runs "
        "is taken from the variable MLXCEL_API_KEY."
    )


def main(options: argparse.Namespace) -> int:
    from ._output import Output

    try:
        if options.output.exists() and options.output.samefile(options.input):
            raise MlxcelConfigError("input and output are the same file")
        with options.input.open("rb") as file, Output(options.output) as output:
            total = _count(file, output.done, options)
            return _run(options, file, total, output)
    except OSError as error:
        if isinstance(error, MlxcelError):
            raise
        raise MlxcelConfigError(str(error)) from error


def _count(file: BinaryIO, done: Done, options: argparse.Namespace) -> int:
    """Lines that want an answer. Raises MlxcelConfigError when the records cannot be those of this input."""
    wanted = wanted_of_done = number = 0
    for number, line in enumerate(file, 1):
        wanted += bool(line.strip())
        if number == done.last_line:
            wanted_of_done = wanted
    if wanted_of_done != done.records:
        raise MlxcelConfigError(
            f"{options.output} has {done.records} records up to line {done.last_line}, and {options.input} "
            f"has {wanted_of_done} lines for that: it is another input's output; name a new file"
        )
    file.seek(0)
    return wanted


def _run(options: argparse.Namespace, file: BinaryIO, total: int, output: Output) -> int:
    from .._crew import in_order
    from .._many import Many, count, stops_all
    from .._progress import PromptBar
    from ..llm import LLM
    from ._lines import answered, failed

    done, errors = output.done.records, output.done.errors
    if done:
        print(f"{done} of {total} lines are answered already", file=sys.stderr)
    if done < total:
        lines = _after(file, output.done.last_line)
        many = Many(concurrency=options.concurrency)
        where = {"model": options.model, "socket": options.socket, "base_url": options.base_url}
        with LLM(**where) as llm, contextlib.closing(PromptBar(total, None, done=done)) as bar:
            outcomes = in_order(_asker(llm), lines, llm._concurrency(many))
            with contextlib.closing(outcomes):
                for outcome in outcomes:
                    if isinstance(outcome, Exception):
                        raise outcome
                    line, result = outcome
                    if isinstance(result, Exception):
                        if stops_all(result):
                            raise result
                        errors += 1
                        output.write(failed(line, result))
                    else:
                        output.write(answered(line, result))
                    count(bar, result)
    print(f"{total - errors} lines are answered, {errors} are errors", file=sys.stderr)
    return _LEFT_ERRORS if errors else 0


def _after(file: BinaryIO, last: int) -> Iterator[Line]:
    from ._lines import Line

    for number, raw in enumerate(file, 1):
        if number > last and raw.strip():
            yield Line(number, raw)


def _asker(llm: LLM) -> Callable[[Line], Awaitable[tuple[Line, Result[Any] | Exception]]]:
    from ._lines import parse

    answer = llm._answer_in_loop()

    async def ask(line: Line) -> tuple[Line, Result[Any] | Exception]:
        attempt = 1
        while True:
            try:
                request = parse(line)
                return line, await answer(request.asked, request.model, CLIENTS)
            except Exception as error:  # noqa: BLE001 - becomes the record of the line
                if attempt == _ATTEMPTS or not _may_be_sent_again(error):
                    return line, error
                attempt += 1

    return ask


def _may_be_sent_again(error: Exception) -> bool:
    """Whether it was the server that failed, or the way to it, and not the line."""
    if isinstance(error, MlxcelServerCrashedError):
        return error.restarting
    return isinstance(error, MlxcelConnectionError)
