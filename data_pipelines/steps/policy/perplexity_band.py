"""BFS-Prover-V2 (24): responses whose perplexity under the policy lies in the middle of all; both tails go.

    ppl = exp(-mean log p)         `aspect` is a response's mean log-probability per token, in nats
    kept: quantile(lower) <= ppl <= quantile(upper), over all responses of the data, linear between neighbors

What the policy is nearly sure of teaches nothing, what it finds far-fetched is noise. The paper does not publish its
cut points; .1 and .9 are inferred. Log-probabilities are the policy's own, so a new policy scores the data anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from data_pipelines.algorithms.responses import narrowed, result_of, rewards_of
from data_pipelines.algorithms.weighing import audited
from data_pipelines.steps import Context, StepResult
from rmkit.errors import ConfigError, DataError
from rmkit.reliability.label_weights import LabelWeights, reasons


@dataclass(frozen=True, kw_only=True)
class Config:
    """`aspect` names the scores; `lower` and `upper` are shares of the responses below the band's ends."""

    aspect: str = "logp_now"
    lower: float = 0.1
    upper: float = 0.9

    def __post_init__(self) -> None:
        if not self.aspect:
            raise ConfigError("perplexity_band: aspect is empty; name the scores that hold mean log-probabilities")
        if not 0 <= self.lower < self.upper <= 1:
            raise ConfigError(f"perplexity_band: expected 0 <= lower < upper <= 1, got {self.lower} and {self.upper}")


def step(frame: pl.DataFrame, config: Config, context: Context) -> StepResult:
    """Rows with the responses inside the band, labels as they were where a row loses none. Raises DataError where no
    row has the scores, or a score is above 0."""
    scored = [(row, values) for row in frame.to_dicts() if (values := rewards_of(row, config.aspect)) is not None]
    if not scored:
        raise DataError(f"no row has a score of {config.aspect} for every response; bring mean log-probabilities")
    logp = np.concatenate([values for _, values in scored])
    if (above := logp[logp > 0]).size:
        raise DataError(f"scores of {config.aspect} are no log-probabilities: {above[0]:g} is above 0")
    band = np.quantile(np.exp(-logp), [config.lower, config.upper])
    perplexity = np.empty(len(scored), dtype=object)  # ragged: rows have different numbers of responses
    perplexity[:] = [np.exp(-np.array(values)) for _, values in scored]
    inside = [(band[0] <= one) & (one <= band[1]) for one in perplexity]
    some, responses = np.array([one.any() for one in inside]), int(sum(one.sum() for one in inside))
    verdicts = LabelWeights(
        method="perplexity_band",
        ids=tuple(row["id"] for row, _ in scored),
        weight=some.astype(np.float64),
        reason=reasons(len(scored), {"every response lies outside the band": ~some}),
        evidence={"perplexity": perplexity},
        facts={"band": [round(float(end), 4) for end in band], "responses": responses},
    )
    rows = [_narrowed(row, one) for (row, _), one in zip(scored, inside, strict=True) if one.any()]
    why = dict.fromkeys(frame["id"], f"not every response has a score of {config.aspect}")
    why |= dict(zip(verdicts.ids, verdicts.reason, strict=True))
    dropped = [(one, reason, None) for one, reason in why.items() if reason]
    note = f"perplexity {band[0]:.4g} to {band[1]:.4g}: {responses} of {len(logp)} responses"
    return audited(result_of(frame, rows, dropped, {"note": note}), verdicts)


def _narrowed(row: dict[str, Any], inside: NDArray[np.bool_]) -> dict[str, Any]:
    """A label over all responses says nothing about some of them."""
    return row if inside.all() else narrowed(row, np.flatnonzero(inside).tolist())
