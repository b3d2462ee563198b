"""Bars: of a start (stage, bytes, seconds), of many prompts. In terminals and notebooks; elsewhere silent."""

from __future__ import annotations

import sys
import time
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._health import Health

__all__ = ["PromptBar", "StartBar", "wanted"]

_PATIENCE = 0.5  # seconds: a start that is over sooner needs no bar, and tqdm no import


def wanted(progress: bool | None) -> bool:
    """Whether to draw: as the caller says, else where a person watches."""
    if progress is not None:
        return progress
    return _in_notebook() or (sys.stderr is not None and sys.stderr.isatty())


def _in_notebook() -> bool:
    """Whether this is a Jupyter kernel; asks only what is imported already."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in shell.config


class StartBar:
    """Draws the answers of `/health`. One stage is one bar; the last one is cleared at the end."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._began = time.monotonic()
        self._bar: Any = None
        self._key: tuple[str, int | None] | None = None

    def show(self, health: Health) -> None:
        """Draw how far it is."""
        if time.monotonic() - self._began < _PATIENCE:
            return
        stage = health.stage or "starting"
        key = (stage, health.bytes_total)
        if key != self._key:
            self.close()
            self._key = key
            self._bar = self._open(stage, health)
        if health.bytes_total:
            self._bar.n = min(health.bytes_done or 0, health.bytes_total)
        elif health.progress is not None:
            self._bar.n = round(health.progress * 100)
        self._bar.refresh()

    def close(self) -> None:
        """Clear the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _open(self, stage: str, health: Health) -> Any:
        options: dict[str, Any] = {"total": None, "bar_format": "{desc}: {elapsed}"}
        if health.bytes_total:
            options = {"total": health.bytes_total, "unit": "B", "unit_scale": True, "unit_divisor": 1024}
        elif health.progress is not None:
            options = {"total": 100, "bar_format": "{desc}: {percentage:3.0f}%|{bar}| {elapsed}"}
        return _new_bar(desc=f"{self._model}: {stage}", leave=False, **options)


class PromptBar:
    """Prompts answered, tokens a second, and how long the rest takes. It stays when it is done."""

    def __init__(self, total: int | None, progress: bool | None, *, done: int = 0) -> None:
        self._total = total
        self._first = done
        self._began = time.monotonic()
        self._bar: Any = None
        self._drawn = wanted(progress)
        self._done = self._failed = self._tokens = 0

    def add(self, tokens: int, *, failed: bool = False) -> None:
        """One more is done, and so many tokens were generated for it."""
        self._done += 1
        self._failed += failed
        self._tokens += tokens
        if not self._drawn:
            return
        seconds = time.monotonic() - self._began
        if self._bar is None:
            if seconds < _PATIENCE:
                return
            self._bar = _new_bar(total=self._total, unit="prompt", initial=self._first)
            self._bar.start_t -= seconds
        self._bar.set_postfix_str(self._said(seconds), refresh=False)
        self._bar.update(self._first + self._done - self._bar.n)

    def close(self) -> None:
        """Draw its last state, and begin a new line."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _said(self, seconds: float) -> str:
        failed = f", {self._failed} failed" if self._failed else ""
        return f"{self._tokens / seconds:.0f} tok/s{failed}"


def _new_bar(**options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a notebook without ipywidgets gets the bar as text
        from tqdm.auto import tqdm  # type: ignore[import-untyped]

    class Bar(tqdm):  # type: ignore[misc]
        monitor_interval = 0  # else a thread of tqdm's stays for ever

    return Bar(**options)
