"""How processes of a server ended, kept for the requests that were on their way to them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ._process import describe_exit
from .errors import MlxcelServerCrashedError

if TYPE_CHECKING:
    from ._process import ServerProcess

__all__ = ["Endings", "crash_of", "first_line", "given_up"]

_KEPT = 32


@dataclass(frozen=True, slots=True)
class _Ending:
    generation: int
    message: str
    stderr_tail: str
    exit_code: int | None


class Endings:
    """The last ones, by generation."""

    def __init__(self) -> None:
        self._kept: deque[_Ending] = deque(maxlen=_KEPT)

    def add(self, generation: int, message: str, process: ServerProcess) -> None:
        """Keep how the process of a generation ended."""
        self._kept.append(_Ending(generation, message, process.stderr_tail(), process.poll()))

    def error(self, generation: int, *, restarting: bool) -> MlxcelServerCrashedError | None:
        """The error for a request of that generation; a new one each time, since each is raised elsewhere."""
        for ending in self._kept:
            if ending.generation == generation:
                return MlxcelServerCrashedError(
                    ending.message,
                    stderr_tail=ending.stderr_tail,
                    exit_code=ending.exit_code,
                    restarting=restarting,
                )
        return None


def crash_of(process: ServerProcess) -> MlxcelServerCrashedError:
    """The error for a process that was ready and has ended."""
    code = process.poll() or 0
    tail = process.stderr_tail(final=True)
    hint = " (the system does that when memory runs out)" if code == -9 else ""
    said = f"; its last lines:\n{tail}" if tail else " and had written nothing to stderr"
    return MlxcelServerCrashedError(
        f"the mlxcel server (pid {process.pid}) {describe_exit(code)}{hint} without being asked{said}",
        stderr_tail=tail,
        exit_code=code,
    )


def given_up(fault: Exception, why: str) -> MlxcelServerCrashedError:
    """The error for everybody once there is no further start."""
    return MlxcelServerCrashedError(
        f"{fault}\n({why}: llm.server.restart() starts it again)",
        stderr_tail=getattr(fault, "stderr_tail", ""),
        exit_code=getattr(fault, "exit_code", None),
    )


def first_line(error: Exception) -> str:
    """What of an error fits into a line of the log."""
    return str(error).partition("\n")[0].removesuffix(":")
