"""Charts of benchmark results: the style matrix, the best-of-N curve, bars with intervals; inline SVG like `charts`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.reports.charts import COLORS, axes_of
from evaluation.scoring.rmbench import STYLE_NAMES


def style_matrix(percent: Sequence[Sequence[float | None]], *, title: str) -> str:
    """RM-Bench's matrix: rows the right reply's style, columns the wrong one's; percent right in every cell."""
    svg: list[str] = []
    with axes_of(3.7, 2.9, svg) as axes:
        values = [[float("nan") if cell is None else cell for cell in row] for row in percent]
        axes.pcolormesh(values, cmap="RdYlBu", vmin=0, vmax=100, edgecolors="white")
        axes.invert_yaxis()
        for i, row in enumerate(values):
            for j, cell in enumerate(row):
                dark = cell < 20 or cell > 80
                axes.text(j + 0.5, i + 0.5, f"{cell:.0f}", ha="center", va="center", color="white" if dark else "black")
        axes.set_xticks([0.5, 1.5, 2.5], STYLE_NAMES)
        axes.set_yticks([0.5, 1.5, 2.5], STYLE_NAMES)
        axes.set_xlabel("style of the wrong reply")
        axes.set_ylabel("style of the right reply")
        axes.set_title(title, fontsize=10)
        axes.grid(visible=False)
    return svg[0]


def best_of_n(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Gold reward of the favorite among n, per model, with the oracle above and the random choice below."""
    svg: list[str] = []
    with axes_of(6.4, 3.2, svg) as axes:
        for index, (name, curve) in enumerate(curves.items()):
            n, gold = [point["n"] for point in curve], [point["gold"] for point in curve]
            error = [1.96 * (point["gold_se"] or 0.0) for point in curve]
            color = COLORS[index % len(COLORS)]
            axes.plot(n, gold, "o-", color=color, label=name, linewidth=1.5, markersize=4)
            axes.fill_between(
                n,
                [g - e for g, e in zip(gold, error, strict=True)],
                [g + e for g, e in zip(gold, error, strict=True)],
                color=color,
                alpha=0.15,
            )
        first = next(iter(curves.values()))
        axes.plot(
            [p["n"] for p in first], [p["oracle"] for p in first], color="#888888", linestyle="--", label="oracle"
        )
        axes.axhline(first[0]["random"], color="#888888", linewidth=1, label="random choice")
        axes.set_xscale("log", base=2)
        shown = [point["n"] for point in first if (point["n"] & (point["n"] - 1)) == 0 or point is first[-1]]
        axes.set_xticks(shown, [str(n) for n in shown])
        axes.set_xlabel("n (log scale)")
        axes.set_ylabel("mean gold reward")
        axes.legend()
    return svg[0]
