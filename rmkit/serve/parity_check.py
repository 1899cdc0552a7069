"""How far a loaded model's scores move with precision and with batch mates: measured on the golden probes at start."""

from __future__ import annotations

import statistics
from typing import Any, NamedTuple

from rmkit.models.artifact.golden import PROBES, probe_item
from rmkit.types import RewardModel, Score


class ParityCheck(NamedTuple):
    """Largest differences of a probe's score: one batch against alone, and as served against fp32 (None: not known).

    `spread` is the standard deviation of the probes' scores, to hold the differences against.
    """

    batch_mates: float
    precision: float | None
    spread: float

    def __str__(self) -> str:
        text = f"batch mates move a score by at most {self.batch_mates:.1e}"
        if self.precision is not None:
            text += f", the precision by {self.precision:.1e}"
        return f"{text} (probes have a standard deviation of {self.spread:.2g})"


def exactness(model: RewardModel) -> ParityCheck:
    """Of a pointwise model. Probes that it cannot score are left out."""
    items = [probe_item(*probe) for probe in PROBES]
    together = model.score(items)
    alone = [model.score([item])[0] for item in items]
    golden: Any = getattr(model, "golden_scores", None)
    values = [row[0].value for row in together if row[0].unscored is None]
    return ParityCheck(
        _largest(together, alone),
        None if golden is None else _largest(together, golden(items)),
        statistics.pstdev(values) if values else 0.0,
    )


def _largest(first: list[list[Score]], second: list[list[Score]]) -> float:
    pairs = [(a[0], b[0]) for a, b in zip(first, second, strict=True)]
    return max((abs(a.value - b.value) for a, b in pairs if a.unscored is None and b.unscored is None), default=0.0)
