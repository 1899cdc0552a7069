"""Charts of the denoising bench: accuracy over noise rate, margins of right and wrong labels by epoch, selection."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evaluation.denoise.grid import HISTOGRAM_EDGES
from evaluation.denoise.summary import CEILING, FLOOR, Line, mean_gain
from evaluation.reports.charts import COLORS, TEXT, axes_of

CURVES = 5  # methods drawn beside ceiling and floor; the table has all
WRONG, RIGHT = COLORS[1], COLORS[0]


def accuracy_over_rate(lines: Sequence[Line], *, kind: str) -> str:
    """Accuracy on right labels over the injected rate with 95% intervals: ceiling, floor and the best other methods.

    Curves stand a little apart, so that no interval hides another.
    """
    svg: list[str] = []
    with axes_of(7.6, 3.9, svg) as axes:
        curves = _drawn(lines)
        for at, (method, color, style) in enumerate(curves):
            mine = sorted(
                (line for line in lines if line.method == method and (line.kind == kind or not line.rate)),
                key=lambda line: line.rate,
            )
            rate = [100 * line.rate + 0.35 * (at - (len(curves) - 1) / 2) for line in mine]
            accuracy, low, high = ([getattr(line, name) for line in mine] for name in ("accuracy", "low", "high"))
            axes.plot(rate, accuracy, style, color=color, label=method, marker="o", markersize=4, linewidth=1.6)
            axes.vlines(rate, low, high, color=color, linewidth=1, alpha=0.6)
        axes.axhline(50, color="#888888", linewidth=1, linestyle="--")
        axes.set_xticks(sorted({100 * line.rate for line in lines if line.kind == kind or not line.rate}))
        axes.set_xlabel(f"{kind} noise: labels turned around (%)")
        axes.set_ylabel("accuracy on right labels (%)")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return svg[0]


def _drawn(lines: Sequence[Line]) -> list[tuple[str, str, str]]:
    """(method, color, line style) of the curves."""
    noisy = [line for line in lines if line.rate > 0 and line.method not in (CEILING, FLOOR)]
    names = sorted({line.method for line in noisy}, key=lambda name: -mean_gain([x for x in noisy if x.method == name]))
    known = {line.method for line in lines}
    ends = [(CEILING, TEXT, ":"), (FLOOR, TEXT, "-")]
    colored = zip(names[:CURVES], COLORS, strict=False)
    return [end for end in ends if end[0] in known] + [(name, color, "-") for name, color in colored]


def margin_histogram(counts_2b: NDArray[np.int64], *, title: str) -> str:
    """Margins of right and of wrong labels over their deviation, each as a share of its own kind."""
    svg: list[str] = []
    with axes_of(2.45, 2.1, svg) as axes:
        for counts, color, name in zip(counts_2b, (RIGHT, WRONG), ("right label", "wrong label"), strict=True):
            share = counts / max(counts.sum(), 1)
            axes.stairs(share, HISTOGRAM_EDGES, fill=True, color=color, alpha=0.45, label=name)
        axes.axvline(0, color="#888888", linewidth=1)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("margin / deviation", fontsize=9)
        axes.set_yticks([])
        axes.legend(fontsize=7, loc="upper left")
    return svg[0]


def selection(lines: Sequence[Line], *, kind: str) -> str:
    """Each filter's kept precision against the share of wrong labels it found, one point a noise rate."""
    svg: list[str] = []
    with axes_of(7.6, 3.6, svg) as axes:
        mine = [line for line in lines if line.kind == kind and line.rate > 0 and line.found is not None]
        names = list(dict.fromkeys(line.method for line in mine))
        for at, name in enumerate(names):
            points = sorted((line for line in mine if line.method == name), key=lambda line: line.rate)
            x, y = [100 * (line.found or 0) for line in points], [100 * (line.kept_precision or 0) for line in points]
            color, style = COLORS[at % len(COLORS)], ("-", "--", ":")[at // len(COLORS) % 3]
            axes.plot(x, y, style, color=color, marker="o", markersize=4, label=name, linewidth=1.2)
            for point, left, up in zip(points, x, y, strict=True):
                axes.annotate(f"{point.rate:.0%}", (left, up), (4, 4), textcoords="offset points", fontsize=7)
        axes.set_xlabel("wrong labels that were dropped (%)")
        axes.set_ylabel("right labels among the kept (%)")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return svg[0]
