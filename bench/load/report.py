"""The figures of a load, in the words of `vllm bench serve`."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .run import Outcome

PERCENTILES = (50, 95, 99)


def summary(outcome: Outcome) -> dict[str, Any]:
    """Counts, throughputs (a second) and latencies (milliseconds: mean and percentiles)."""
    done = [record for record in outcome.records if record.ok]
    failed = [record for record in outcome.records if not record.ok]
    prompt = sum(record.prompt_tokens for record in done)
    output = sum(record.output_tokens for record in done)
    return {
        "completed": len(done),
        "failed": len(failed),
        "errors": sorted({record.error for record in failed})[:5],
        "duration": outcome.seconds,
        "total_input_tokens": prompt,
        "total_cached_tokens": sum(record.cached_tokens for record in done),
        "total_output_tokens": output,
        "request_throughput": len(done) / outcome.seconds,
        "output_throughput": output / outcome.seconds,
        "total_token_throughput": (prompt + output) / outcome.seconds,
        "ttft_ms": latency([record.ttft for record in done]),
        "tpot_ms": latency([tpot for record in done if (tpot := record.tpot) is not None]),
        "itl_ms": latency([gap for record in done for gap in record.itl]),
        "e2el_ms": latency([record.e2el for record in done]),
    }


def latency(seconds: Sequence[float]) -> dict[str, float]:
    if not seconds:
        return {}
    ordered = sorted(seconds)
    figures = {"mean": statistics.fmean(ordered)} | {f"p{p}": percentile(ordered, p) for p in PERCENTILES}
    return {name: value * 1000 for name, value in figures.items()}


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Linear between the two nearest ranks, as numpy's default."""
    position = (len(ordered) - 1) * percent / 100
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def text(figures: dict[str, Any]) -> str:
    """One figure a line."""
    lines = []
    for name, value in figures.items():
        if isinstance(value, dict):
            row = "  ".join(f"{key} {number:9.2f}" for key, number in value.items())
            lines.append(f"{name:24} {row or '-'}")
        elif isinstance(value, list):
            lines += [f"{name:24} {entry}" for entry in value]
        elif isinstance(value, float):
            lines.append(f"{name:24} {value:.2f}")
        else:
            lines.append(f"{name:24} {value}")
    return "\n".join(lines)
