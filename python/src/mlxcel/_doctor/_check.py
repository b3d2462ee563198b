"""What a look at one thing came to."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from .._version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Check", "Status", "fail", "ok", "report", "skip", "text", "warn"]

_FORMAT = 1


class Status(StrEnum):
    OK = "ok"
    WARN = "warn"
    """It works, but something may surprise."""
    FAIL = "fail"
    """It does not work."""
    SKIP = "skip"
    """Not looked at, because of a failure before."""


@dataclass(frozen=True)
class Check:
    """`summary` says what is, `advice` what to do about it. `details` are for scripts."""

    name: str
    status: Status
    summary: str
    advice: str = ""
    details: dict[str, Any] = field(default_factory=dict)


def ok(name: str, summary: str, **details: Any) -> Check:
    return Check(name, Status.OK, summary, details=details)


def warn(name: str, summary: str, advice: str, **details: Any) -> Check:
    return Check(name, Status.WARN, summary, advice, details)


def fail(name: str, summary: str, advice: str, **details: Any) -> Check:
    return Check(name, Status.FAIL, summary, advice, details)


def skip(name: str, why: str) -> Check:
    return Check(name, Status.SKIP, why)


def report(checks: Sequence[Check]) -> dict[str, Any]:
    """The JSON form. Fields are only ever added within one `format`."""
    return {
        "format": _FORMAT,
        "mlxcel": __version__,
        "ok": not any(check.status is Status.FAIL for check in checks),
        "checks": [asdict(check) for check in checks],
    }


def text(checks: Sequence[Check]) -> str:
    """The form for people: a line a check, its advice below it, and a verdict."""
    width = max((len(check.name) for check in checks), default=0)
    indent = " " * (width + 8)
    lines = []
    for check in checks:
        first, *rest = check.summary.splitlines() or [""]
        lines.append(f"{check.status.value:<4}  {check.name:<{width}}  {first}")
        lines += [indent + line for line in rest]
        lines += [f"{indent}→ {line}" for line in check.advice.splitlines()]
    failed = [check.name for check in checks if check.status is Status.FAIL]
    warned = [check.name for check in checks if check.status is Status.WARN]
    if failed:
        lines.append(f"\nNot well: {', '.join(failed)}. Start with the first one.")
    elif warned:
        lines.append(f"\nIt works. Worth a look: {', '.join(warned)}.")
    else:
        lines.append("\nAll is well.")
    return "\n".join(lines)
