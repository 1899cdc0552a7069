"""Running statistics of a whole run, which reach transforms as columns.

    quantile   q <- q + rate (level - 1[s < q])   (RiskPO's trackers, preset `risk_po`)
    mean       of all earlier batches             (entropy history of `entropy_smoothing`)

What a tracker says of a batch is what it knew before the batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Quantile(NamedTuple):
    level: float
    value: float | None = None  # None until the first batch: no quantile is known, so none is claimed

    def observed(self, values: Iterable[float], *, rate: float = 0.1) -> Quantile:
        """After a batch; the first value is where the tracker begins. The share below is that of the batch."""
        batch = list(values)
        if not batch:
            return self
        value = batch[0] if self.value is None else self.value
        below = sum(one < value for one in batch) / len(batch)
        return self._replace(value=value + rate * (self.level - below))


class Mean(NamedTuple):
    total: float = 0.0
    n: int = 0

    @property
    def value(self) -> float | None:
        return self.total / self.n if self.n else None

    def observed(self, values: Iterable[float]) -> Mean:
        """After a batch, which counts once, by its own mean."""
        batch = list(values)
        return Mean(self.total + sum(batch) / len(batch), self.n + 1) if batch else self


def count_bonus(n: int, *, exponent: float = 1.0) -> float:
    """ONI's factor 1 / n^exponent for a prompt, state or caption that was seen n times; 1 for one never seen (B42)."""
    return float(1.0 / max(n, 1) ** exponent)
