"""Accuracy over labels spent: the mean of each strategy with a band of one standard error."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from evaluation.reports.charts import COLORS
from labeling_ui.learning.strategies import (
    Floats,
    SimulationConfig,
)


def plot(values: Mapping[str, Floats], settings: SimulationConfig, path: Path, *, title: str) -> None:
    """Draw into a file; its ending decides PNG or SVG."""
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axes = figure.subplots()
    spent = settings.start + settings.batch * np.arange(settings.rounds + 1)
    for color, (name, runs) in zip(("#666666", *COLORS), values.items(), strict=False):
        mean, error = 100 * runs.mean(0), 100 * runs.std(0, ddof=1) / np.sqrt(len(runs)) if len(runs) > 1 else 0.0
        axes.plot(spent, mean, color=color, label=name, linewidth=2.4 if name == "random" else 1.6)
        axes.fill_between(spent, mean - error, mean + error, color=color, alpha=0.12, linewidth=0)
    axes.axhline(100 * values["random"].mean(0)[-1], color="#888888", linewidth=1, linestyle="--")
    axes.set_xlabel("labels spent")
    axes.set_ylabel("held-out accuracy, percent")
    axes.set_title(f"{title}: {settings.seeds} seeds, band is one standard error", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=130)
