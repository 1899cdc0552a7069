"""Agreement among raters: Krippendorff's alpha with a confidence interval, and each rater against the rest.

Krippendorff, "Computing Krippendorff's Alpha-Reliability", 2011. With o_cd the coincidences of verdicts c and d within
rows (a row of m votes adds 1 / (m - 1) per ordered pair of votes), n_c = sum_d o_cd, n = sum_c n_c,

    alpha = 1 - (n - 1) sum_cd o_cd delta_cd / sum_cd n_c n_d delta_cd

delta is 0 or 1 for level nominal; for ordinal the order is first, tie, second, and
delta_cd = (sum_(g = c..d) n_g - (n_c + n_d) / 2)^2. Rows with fewer than two votes carry no information and are left
out. 1 is perfect agreement, 0 what chance gives. The interval is a bootstrap over rows (default 1000 draws, 95%).

Chance agreement depends on which response of a pair is called the first. `alpha` takes the stored order, which goes by
content hash and says nothing about what raters saw; `column_order` repeats it in the order of the file's columns (who
votes for the left one too often raises chance agreement there), over the votes of files whose columns have one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from data_pipelines.algorithms.votes import Votes, pair_votes
from data_pipelines.scopes import Columns
from data_pipelines.steps import Context, StepResult, partition
from rmkit.errors import ConfigError

Level = Literal["nominal", "ordinal"]

ORDER = np.array([0, 2, 1])  # of the columns of `Votes.counts`: first, tie, second


@dataclass(frozen=True, kw_only=True)
class Config:
    level: Level = "nominal"
    min_agreement: float = 0.0
    draws: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.min_agreement <= 1:
            raise ConfigError(f"agreement: min_agreement is a share in [0, 1], got {self.min_agreement}")
        if self.draws < 1:
            raise ConfigError(f"agreement: draws must be positive, got {self.draws}")


SCOPE = Columns("id", "kind", "votes", lengths=("responses",))


def step(frame: pl.DataFrame, config: Config, context: Context) -> StepResult:
    """Keeps all rows, or drops those of two or more votes whose commonest verdict has less than `min_agreement`."""
    votes = pair_votes(frame)
    counts = votes.counts()
    n_votes = counts.sum(1)
    share = np.divide(counts.max(1, initial=0), n_votes, out=np.ones(len(frame)), where=n_votes >= 2)
    low = pl.Series(share < config.min_agreement - 1e-9)
    summary = pl.select(
        reason=pl.when(low).then(pl.lit("raters disagree")),
        evidence=pl.when(low).then(pl.format("{} of votes agree", pl.Series(share).round(3))),
    )
    alpha, low_end, high_end = alpha_interval(
        counts[:, ORDER], level=config.level, draws=config.draws, seed=config.seed
    )
    facts = {
        "alpha": _number(alpha),
        "interval": [_number(low_end), _number(high_end)],
        "level": config.level,
        "order": "stored, by content hash",
        "column_order": _in_columns(frame, config),
        "units": int((n_votes >= 2).sum()),
        "raters": len(votes.raters),
        "votes": len(votes.row),
        "rater_agreement": against_rest(votes, counts),
    }
    facts["note"] = _note(facts)
    return partition(frame, summary["reason"], evidence=summary["evidence"], facts=facts)


def _in_columns(frame: pl.DataFrame, config: Config) -> dict[str, object] | None:
    """Alpha of the votes whose file has an order of columns, in that order; None where no row has two of them."""
    counts = pair_votes(frame, in_columns=True).counts()
    units = int((counts.sum(1) >= 2).sum())
    if not units:
        return None
    alpha, low, high = alpha_interval(counts[:, ORDER], level=config.level, draws=config.draws, seed=config.seed)
    return {"alpha": _number(alpha), "interval": [_number(low), _number(high)], "units": units}


def _note(facts: Mapping[str, Any]) -> str:
    if not facts["units"]:
        return "no row has two votes"
    parts = [_figure(facts) + f" over {facts['units']} rows in stored order (by content hash)"]
    if columns := facts["column_order"]:
        parts.append(_figure(columns) + f" over {columns['units']} rows in the order of the file's columns")
    return "; ".join(parts)


def _figure(facts: Mapping[str, Any]) -> str:
    if facts["alpha"] is None:
        return "alpha undefined (all votes are the same)"
    low, high = facts["interval"]
    return f"alpha {facts['alpha']:.3f}" + ("" if low is None else f" [{low:.3f}, {high:.3f}]")


def alpha_interval(
    counts: NDArray[np.int64], *, level: Level = "nominal", draws: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """Alpha of votes counted as [rows, values], in the order of their scale, and its 95% bootstrap interval over rows.

    NaN where no row has two votes, or where all votes are the same, so that chance agreement is undefined.
    """
    pairable = counts[counts.sum(1) >= 2].astype(np.float64)
    k = counts.shape[1]
    if not len(pairable):
        return np.nan, np.nan, np.nan
    m = pairable.sum(1)[:, None, None]
    coincidence = (pairable[:, :, None] * pairable[:, None, :] - pairable[:, :, None] * np.eye(k)) / (m - 1)
    alpha = _alpha(coincidence.sum(0)[None], level)[0]
    # Rows with the same counts are interchangeable, so a draw is one multinomial over the distinct ones.
    distinct, many = np.unique(coincidence.reshape(-1, k * k), axis=0, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(many.sum(), many / many.sum(), size=draws)
    spread = _alpha((drawn @ distinct).reshape(-1, k, k), level)
    low, high = np.nanpercentile(spread, [2.5, 97.5]) if not np.isnan(spread).all() else (np.nan, np.nan)
    return float(alpha), float(low), float(high)


def _alpha(o: NDArray[np.float64], level: Level) -> NDArray[np.float64]:
    """[B] alpha of coincidence matrices o [B, K, K]."""
    k = o.shape[1]
    n_c = o.sum(2)
    n = n_c.sum(1)
    if level == "nominal":
        delta = np.broadcast_to(1 - np.eye(k), o.shape)
    else:
        upto = np.cumsum(n_c, 1)
        low, high = np.minimum.outer(range(k), range(k)), np.maximum.outer(range(k), range(k))
        between = upto[:, high] - upto[:, low] + n_c[:, low]
        delta = (between - (n_c[:, :, None] + n_c[:, None, :]) / 2) ** 2
    observed = (o * delta).sum((1, 2))
    expected = (n_c[:, :, None] * n_c[:, None, :] * delta).sum((1, 2))
    ratio = np.divide((n - 1) * observed, expected, out=np.full(len(o), np.nan), where=expected > 0)
    return np.asarray(1 - ratio)


def against_rest(votes: Votes, counts: NDArray[np.int64]) -> list[dict[str, object]]:
    """Per rater, how often the vote equals the majority of the others on that row; rows where they tie do not count."""
    others = counts[votes.row]
    others[np.arange(len(votes.row)), votes.verdict] -= 1
    top = others.max(1, initial=0)
    clear = (top > 0) & ((others == top[:, None]).sum(1) == 1)
    agrees = others.argmax(1) == votes.verdict if len(others) else np.zeros(0, bool)
    n = np.bincount(votes.rater[clear], minlength=len(votes.raters))
    same = np.bincount(votes.rater[clear & agrees], minlength=len(votes.raters))
    return [
        {"rater": name, "agreement": round(float(same[at] / n[at]), 4), "n": int(n[at])}
        for at, name in enumerate(votes.raters)
        if n[at]
    ]


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)
