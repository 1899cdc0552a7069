"""Style: markdown, lists, bold, headings and code fences, apart from length.

The style of a reply is the number of its markdown marks (headings, list items, bold spans, fences). Told are

    accuracy     where the better reply has more marks than the worse one, fewer, or as many
    correlation  of the margin with the difference of log(1 + marks), Pearson, over all comparisons
    partial      the same with the difference of log(1 + characters) taken out of both sides (least squares): what style
                 is worth to the model beyond length
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evaluation.probes.comparisons import Compared, in_percent
from rmkit.metrics import pair_accuracy

MARKS = re.compile(r"^#{1,6} |^\s*(?:[-*+]|\d+[.)]) |\*\*[^*\n]+\*\*|^```", re.MULTILINE)


def marks(text: str) -> int:
    """Number of markdown marks in a text."""
    return len(MARKS.findall(text))


def style_probe(compared: Sequence[Compared]) -> dict[str, object] | None:
    """The three facts above; None without texts."""
    known = [(one, texts) for one in compared if (texts := one.texts) is not None]
    if not known:
        return None
    margin = np.array([one.margin for one, _ in known])
    clusters = np.array([one.item.cluster for one, _ in known])
    counted = {text: math.log1p(marks(text)) for _, texts in known for text in texts}
    style = np.array([[counted[text] for text in texts] for _, texts in known])
    length = np.array([[math.log1p(len(text)) for text in texts] for _, texts in known])
    more = style[:, 0] - style[:, 1]
    slices = {"richer": more > 0, "plainer": more < 0, "equal": more == 0}
    scored = ~np.isnan(margin)
    return {
        "n": int(scored.sum()),
        "correlation": correlation(margin[scored], more[scored]),
        "partial": partial_correlation(margin[scored], more[scored], (length[:, 0] - length[:, 1])[scored]),
        "accuracy": {
            name: in_percent(pair_accuracy(margin[where], np.ones(where.sum()), clusters=clusters[where]))
            for name, where in slices.items()
        },
    }


def correlation(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Uncentered correlation: a comparison may be written either way round, so the means are 0 by symmetry."""
    bottom = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / bottom if bottom > 0 else math.nan


def partial_correlation(x: NDArray[np.float64], y: NDArray[np.float64], inputs: NDArray[np.float64]) -> float:
    """Correlation of x and y after the least-squares part of `inputs` is taken out of both; NaN where nothing is left
    of one of them (up to rounding)."""
    square = float(inputs @ inputs)
    if square == 0:
        return correlation(x, y)
    left = [values - inputs * float(inputs @ values) / square for values in (x, y)]
    if any(float(rest @ rest) <= 1e-18 * float(values @ values) for rest, values in zip(left, (x, y), strict=True)):
        return math.nan
    return correlation(*left)
