"""The file of records: in the order of the input, one write a record, and what of it an earlier run left."""

from __future__ import annotations

import fcntl
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from ..errors import MlxcelConfigError

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

__all__ = ["Done", "Output"]

_RECORD = re.compile(rb'\{"line": (\d+)(, "error": \{)?')


@dataclass(frozen=True, slots=True)
class Done:
    """What the file holds already."""

    last_line: int = 0
    """Number of the last line of the input that is answered; records are in its order."""
    records: int = 0
    errors: int = 0


class Output:
    """Appends records. Held by one process at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("a+b", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.done = self._resume()
        except BlockingIOError:
            self._file.close()
            raise MlxcelConfigError(f"{path} is being written by another run") from None
        except BaseException:
            self._file.close()
            raise

    def write(self, record: bytes) -> None:
        """Append a record. A process that is killed leaves all of it, or the beginning of its one line."""
        written = 0
        while written < len(record):
            written += self._file.write(record[written:]) or 0

    def _resume(self) -> Done:
        """Read what is there, and cut off a line that was not written to its end."""
        last = records = errors = whole = 0
        with self._path.open("rb") as file:
            for text in file:
                if not text.endswith(b"\n"):
                    break
                match = _RECORD.match(text)
                if match is None or int(match[1]) <= last:
                    raise MlxcelConfigError(
                        f"{self._path} is no output of `python -m mlxcel batch`: see its line {records + 1}; "
                        "name a new file"
                    )
                last = int(match[1])
                records += 1
                errors += match[2] is not None
                whole += len(text)
        os.ftruncate(self._file.fileno(), whole)
        return Done(last, records, errors)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()
