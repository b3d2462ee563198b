"""Draws what the measurements of the CPU reach of their aims, from `results/`, for docs/performance.md.

python bench/plot.py [--out docs/performance.svg]
"""

from __future__ import annotations

import argparse
import json
import math
from html import escape
from pathlib import Path

from figures import RESULTS, Figure

DOCS = Path(__file__).parents[1] / "docs"
WIDTH, LABELS, ROW, TOP = 860, 420, 24, 44
# Shares of the aim at both ends of the axis, which is logarithmic.
LEAST, MOST = 0.25, 8.0
TICKS = [0.25, 0.5, 1, 2, 4, 8]
REACHED, MISSED, LINES, TEXT = "#2a9d8f", "#e76f51", "#b0b0b0", "#808080"


def share(figure: Figure) -> float:
    """What of its aim a figure reaches: 1 and more is all of it."""
    return figure.aim / figure.ratio if figure.at_most else figure.ratio / figure.aim


def x_of(part: float) -> float:
    within = math.log(min(max(part, LEAST), MOST) / LEAST) / math.log(MOST / LEAST)
    return LABELS + within * (WIDTH - LABELS - 60)


def text(x: float, y: float, content: str, anchor: str = "start") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" fill="{TEXT}">{escape(content)}</text>'


def draw(rows: list[tuple[str, Figure]]) -> str:
    """An SVG with a bar for each figure."""
    bottom = TOP + ROW * len(rows)
    box = f"0 0 {WIDTH} {bottom + 12}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" font-family="sans-serif" font-size="12">',
        text(LABELS, 16, "share of the aim reached"),
    ]
    for tick in TICKS:
        x, width = x_of(tick), 2 if tick == 1 else 0.5
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 8}" y2="{bottom}" stroke="{LINES}" '
            f'stroke-width="{width}"/>'
        )
        parts.append(text(x, TOP - 12, f"{tick:g}", "middle"))
    for place, (title, figure) in enumerate(rows):
        y = TOP + ROW * place
        start, end = sorted((x_of(1), x_of(share(figure))))
        color = REACHED if figure.met else MISSED
        parts.append(text(LABELS - 12, y + 14, f"{title}: {figure.what}", "end"))
        parts.append(
            f'<rect x="{start:.1f}" y="{y + 3}" width="{end - start:.1f}" height="{ROW - 8}" fill="{color}"/>'
        )
        parts.append(text(WIDTH - 4, y + 14, f"{figure.ratio:.2f}", "end"))
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=DOCS / "performance.svg")
    arguments = parser.parse_args()
    rows = []
    for path in sorted(RESULTS.glob("*.json")):
        result = json.loads(path.read_text())
        rows += [(result["title"], Figure(**figure)) for figure in result.get("figures", [])]
    arguments.out.write_text(draw(rows))
    print(f"{len(rows)} figures in {arguments.out}")


if __name__ == "__main__":
    main()
