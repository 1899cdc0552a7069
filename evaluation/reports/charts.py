"""Charts for the HTML pages: inline SVG that follows the page's text color and font, in light and in dark."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evaluation.scoring.rmbench import STYLE_NAMES

# Color-blind safe (Okabe and Ito) and legible on white and on near-black.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
# A color that no chart uses; it becomes currentColor in the page.
TEXT = "#010203"

STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "rmkit",
    "font.size": 10,
    "text.color": TEXT,
    "axes.labelcolor": TEXT,
    "axes.edgecolor": "#8888887f",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
    "axes.grid": True,
    "grid.color": "#88888833",
    "axes.axisbelow": True,
    "legend.frameon": False,
}


@contextmanager
def axes_of(width: float, height: float, into: list[str]) -> Iterator[Axes]:
    """Axes to draw on; the SVG is appended to `into` at the end."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure.subplots()
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    svg = out.getvalue()[out.getvalue().index("<svg") :].replace(TEXT, "currentColor")
    svg = re.sub(r"font: (\d+)px [^;\"]*", r"font: \1px system-ui, sans-serif", svg)
    into.append(svg)


def forest(rows: Sequence[Mapping[str, Any]], *, xlabel: str, reference: float | None = None) -> str:
    """Estimates with intervals, one line each. A row has label, value, low, high (percent) and maybe a color index."""
    svg: list[str] = []
    with axes_of(8.4, 0.6 + 0.42 * len(rows), svg) as axes:
        for y, row in enumerate(reversed(rows)):
            color = COLORS[row.get("color", 0)]
            axes.plot([row["low"], row["high"]], [y, y], color=color, linewidth=3, solid_capstyle="round", alpha=0.55)
            axes.plot([row["value"]], [y], "o", color=color, markersize=7)
            axes.annotate(f"{row['value']:.1f}", (row["value"], y), (0, 7), textcoords="offset points", ha="center")
        axes.set_yticks(range(len(rows)), [row["label"] for row in reversed(rows)])
        axes.set_ylim(-0.6, len(rows) - 0.2)
        if reference is not None:
            axes.axvline(reference, color="#888888", linewidth=1, linestyle="--")
        axes.set_xlabel(xlabel)
        axes.grid(visible=False, axis="y")
    return svg[0]


def reliability(curves: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Reliability curves: mean predicted against observed probability per bin; dot area grows with the bin's count."""
    svg: list[str] = []
    with axes_of(4.2, 3.8, svg) as axes:
        axes.plot([0, 1], [0, 1], color="#888888", linewidth=1, linestyle="--")
        for index, (name, bins) in enumerate(curves.items()):
            full = [one for one in bins if one["n"]]
            x, y = [one["predicted"] for one in full], [one["observed"] for one in full]
            axes.plot(x, y, color=COLORS[index % len(COLORS)], label=name, linewidth=1.5)
            axes.scatter(
                x,
                y,
                s=[8 + 120 * one["n"] / sum(b["n"] for b in full) for one in full],
                color=COLORS[index % len(COLORS)],
            )
        axes.set_xlabel("predicted probability")
        axes.set_ylabel("share of labels that agree")
        axes.legend(loc="upper left")
    return svg[0]


def histogram(edges: Sequence[float], counts: Sequence[int], *, xlabel: str) -> str:
    """A margin histogram; what lies left of zero, where the model contradicts the label, in another color."""
    svg: list[str] = []
    with axes_of(4.6, 2.6, svg) as axes:
        width = edges[1] - edges[0]
        colors = [COLORS[1] if edge + width / 2 < 0 else COLORS[0] for edge in edges[:-1]]
        axes.bar(edges[:-1], counts, width=width * 0.94, align="edge", color=colors)
        axes.axvline(0, color="#888888", linewidth=1)
        axes.set_xlabel(xlabel)
        axes.set_ylabel("pairs")
        axes.grid(visible=False, axis="x")
    return svg[0]


def grouped_bars(groups: Sequence[str], series: Mapping[str, Sequence[float | None]], *, ylabel: str) -> str:
    """Bars of each series side by side in each group; None is left out."""
    svg: list[str] = []
    with axes_of(8.4, 2.8, svg) as axes:
        width = 0.8 / len(series)
        for index, (name, values) in enumerate(series.items()):
            at = [(x + (index - (len(series) - 1) / 2) * width, v) for x, v in enumerate(values) if v is not None]
            axes.bar(
                [x for x, _ in at],
                [v for _, v in at],
                width=width * 0.92,
                color=COLORS[index % len(COLORS)],
                label=name,
            )
        axes.set_xticks(range(len(groups)), groups)
        axes.set_ylabel(ylabel)
        axes.axhline(50, color="#888888", linewidth=1, linestyle="--")
        axes.grid(visible=False, axis="x")
        axes.legend(ncols=len(series), loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0)
    return svg[0]


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
