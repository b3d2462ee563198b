"""Python and the packages this one needs."""

from __future__ import annotations

import platform
import re
import sys
from importlib import metadata

from ._check import Check, fail, ok

__all__ = ["check_packages", "check_python", "lacking", "versions"]

_OLDEST = (3, 11)
_REQUIREMENT = re.compile(r"^\s*([A-Za-z0-9_.-]+)(?:\[[^\]]*\])?\s*(?:(>=|==)\s*([0-9.]+))?")


def check_python() -> Check:
    version = platform.python_version()
    details = {"version": version, "executable": sys.executable, "platform": platform.platform()}
    summary = f"Python {version} on {platform.system()} {platform.machine()}"
    if sys.version_info < _OLDEST:
        return fail("python", summary, "mlxcel needs Python 3.11 or newer", **details)
    return ok("python", summary, **details)


def check_packages() -> Check:
    """The installed versions against what this package's metadata asks for."""
    requirements = [
        line
        for line in metadata.requires("mlxcel") or []
        if "extra ==" not in line and _applies(line.partition(";")[2])
    ]
    installed = versions(requirements)
    problems = lacking(requirements, installed)
    shown = ", ".join(f"{name} {version or 'missing'}" for name, version in installed.items())
    if problems:
        return fail(
            "packages", shown, f"pip install {' '.join(repr(line) for line in problems)}", installed=installed
        )
    return ok("packages", shown, installed=installed)


def versions(requirements: list[str]) -> dict[str, str | None]:
    """Installed version of each required package; None for one that is not there."""
    found: dict[str, str | None] = {}
    for line in requirements:
        match = _REQUIREMENT.match(line)
        if match is not None:
            try:
                found[match[1]] = metadata.version(match[1])
            except metadata.PackageNotFoundError:
                found[match[1]] = None
    return found


def lacking(requirements: list[str], installed: dict[str, str | None]) -> list[str]:
    """Requirements (`name>=1`, `name==1.2`) that the installed versions do not meet."""
    problems = []
    for line in requirements:
        match = _REQUIREMENT.match(line)
        if match is None:
            continue
        name, relation, wanted = match.groups()
        have = installed.get(name)
        if have is None:
            met = False
        elif relation == "==":
            met = _numbers(have) == _numbers(wanted)
        else:
            met = relation is None or _numbers(have) >= _numbers(wanted)
        if not met:
            problems.append(line.partition(";")[0].strip())
    return problems


def _numbers(version: str) -> tuple[int, ...]:
    release = re.match(r"[0-9.]*", version)
    parts = [int(part) for part in (release[0] if release else "").split(".") if part]
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)


def _applies(marker: str) -> bool:
    """Whether a marker is for this system; only `sys_platform` is used here."""
    match = re.search(r"sys_platform\s*==\s*['\"](\w+)['\"]", marker)
    return match is None or match[1] == sys.platform
