"""How many labels are wrong: given, counted on gold items, or estimated from cross-fitted margins; with an interval.

    gold        wrong / checked on items whose right label is known, Clopper-Pearson interval
    cross_fit   q = share of pairs that a model which never saw them contradicts. With the model's own error rate e on
                right labels and flips independent of it, q = eta (1 - e) + (1 - eta) e, so that
                    eta = (q - e) / (1 - 2 e)
                e is unknown without gold; without it e = 0 and eta = q, an upper estimate wherever the model errs.
                Interval: 2.5 and 97.5% quantiles of a cluster bootstrap over prompts.

An overestimated prior costs little (true 30%: priors 30, 40, 50% gave 87.1, 87.7, 88.1), an underestimated one much
((10%: 81.4), so the upper estimate is the safe one. Values are capped at 0.45: from one half on labels carry no signal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from rmkit.errors import DataError
from rmkit.metrics import clustered_interval
from rmkit.reliability.label_weights import check_enough, check_noise

LARGEST = 0.45
MIN_GOLD = 20

Source = Literal["given", "gold", "cross_fit"]


@dataclass(frozen=True, slots=True)
class NoisePrior:
    """The share of wrong labels with its 95% interval (None where given), from `n` items."""

    value: float
    low: float | None
    high: float | None
    source: Source
    n: int

    def __str__(self) -> str:
        between = "" if self.low is None else f" (95% interval {self.low:.3f} to {self.high:.3f}, n = {self.n})"
        return f"{self.value:.3f} {self.source}{between}"


def stated(noise: float) -> NoisePrior:
    """A prior that the user states. Raises ConfigError outside [0, 0.5)."""
    return NoisePrior(check_noise(noise), None, None, "given", 0)


def from_gold(agrees: ArrayLike) -> NoisePrior:
    """From items whose right label is known: `agrees` [m] says whether the given label is right. Raises DataError
    below 20 items, or where half of the labels or more are wrong."""
    from scipy.stats import binomtest

    agrees_m = np.asarray(agrees, dtype=bool)
    check_enough(len(agrees_m), least=MIN_GOLD, what="gold items")
    wrong = int((~agrees_m).sum())
    interval = binomtest(wrong, len(agrees_m)).proportion_ci(0.95, method="exact")
    return _checked(wrong / len(agrees_m), interval.low, interval.high, "gold", len(agrees_m))


def from_margins(
    margin: ArrayLike, *, groups: Sequence[object] | None = None, model_error: float = 0.0, seed: int = 0
) -> NoisePrior:
    """From cross-fitted margins [n] of the labeled order; NaN ones are left out. `model_error` is the model's error
    rate on labels known to be right. Raises DataError below 50 pairs, or where the model surely contradicts
    half of the labels or more."""
    margin_n = np.asarray(margin, dtype=np.float64)
    known = ~np.isnan(margin_n)
    check_enough(int(known.sum()))
    check_noise(model_error)
    against = np.where(margin_n == 0, 0.5, margin_n < 0)[known]
    owners = np.arange(len(margin_n)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    interval = clustered_interval(against, owners[known], seed=seed)
    if interval is None:
        raise DataError("all pairs are of one prompt: no interval can be given; state the noise prior instead")
    eta, low, high = (
        float(np.clip((q - model_error) / (1 - 2 * model_error), 0, 1))
        for q in (against.mean(), interval.low, interval.high)
    )
    return _checked(eta, low, high, "cross_fit", int(known.sum()))


def _checked(value: float, low: float, high: float, source: Source, n: int) -> NoisePrior:
    if low >= 0.5 or (source == "gold" and value >= 0.5):
        raise DataError(
            f"{value:.1%} of {n} {'gold' if source == 'gold' else 'cross-fitted'} labels look wrong: nothing can be "
            "learned from them, or chosen and rejected are exchanged"
        )
    return NoisePrior(min(value, LARGEST), low, high, source, n)
