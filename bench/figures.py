"""Ratios beside their aims, as every measurement of the CPU leaves them in `results/`."""

from __future__ import annotations

import json
import os
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")


@dataclass(frozen=True)
class Figure:
    """A ratio, and what it is to be: at least the aim, or at most."""

    what: str
    ratio: float
    aim: float
    at_most: bool = False

    @property
    def met(self) -> bool:
        return self.ratio <= self.aim if self.at_most else self.ratio >= self.aim

    def __str__(self) -> str:
        bound = "most" if self.at_most else "least"
        return f"{self.what}: {self.ratio:.2f} (aim: at {bound} {self.aim:g})"


def report(title: str, loads: list[float], figures: list[Figure], data: Any, out: Path | None) -> None:
    """Prints the figures, and writes them with the data behind them where `out` says."""
    cores = len(os.sched_getaffinity(0))
    print(f"{title}: {cores} cores, load {statistics.median(loads):.1f}")
    for figure in figures:
        print(f"  {figure}")
    if out:
        whole = {"title": title, "cores": cores, "load": loads, "figures": list(map(asdict, figures))}
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(whole | {"data": data}, indent=1) + "\n")


def load() -> float:
    """The machine's load over the last minute."""
    return os.getloadavg()[0]
