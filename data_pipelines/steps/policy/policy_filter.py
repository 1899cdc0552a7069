"""PF-PPO: of every row's responses those whose reward can be trusted, for training a policy on them.

`strategy` best (bon), best and a random other (br), best and worst (bw), all, or all weighed by the squared reward
(square); "auto" takes the one whose rewards explain `truth` best: R^2 on the rows that have scores of both aspects
(tests passed, a verifier's verdict), told for every strategy (rmkit.reliability.pf_ppo). The weight of each response
kept stands among its scores under the aspect "weight".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from data_pipelines.algorithms.responses import narrowed, ranks_of, result_of, rewards_of, scored_label
from data_pipelines.algorithms.weighing import DIGITS, audited
from data_pipelines.steps import Context, StepResult
from rmkit.errors import ConfigError, DataError
from rmkit.reliability.label_weights import LabelWeights, reasons
from rmkit.reliability.pf_ppo import STRATEGIES, Strategy, best_strategy, kept_weights

WEIGHT = "weight"


@dataclass(frozen=True, kw_only=True)
class Config:
    """`aspect` and `truth` name scores: the rewards, and what they should follow."""

    aspect: str
    strategy: Literal["auto", "all", "bon", "br", "bw", "square"] = "auto"
    truth: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.strategy == "auto" and not self.truth:
            raise ConfigError(f'policy_filter: "auto" needs truth = ASPECT; or name one of {", ".join(STRATEGIES)}')


def step(frame: pl.DataFrame, config: Config, context: Context) -> StepResult:
    """Rows with the responses that the strategy keeps. Raises DataError where R^2 cannot be measured."""
    rows = [row for row in frame.to_dicts() if rewards_of(row, config.aspect) is not None]
    if not rows:
        raise DataError(f"no row has a score of {config.aspect} for every response; put the step score before this one")
    ids, reward_PN = [row["id"] for row in rows], _padded(rows, config.aspect)
    strategy, r_squared = _strategy(rows, reward_PN, config)
    weight_PN = kept_weights(ids, reward_PN, strategy=strategy, seed=config.seed)
    some = np.asarray((weight_PN > 0).any(axis=1))
    verdicts = LabelWeights(
        method="policy_filter",
        ids=tuple(ids),
        weight=some.astype(np.float64),
        reason=reasons(len(ids), {"every response weighs nothing": ~some}),
        evidence={"reward": _ragged(reward_PN, rows), "response_weight": _ragged(weight_PN, rows)},
        facts={"strategy": strategy, "r_squared": r_squared, "responses": int((weight_PN > 0).sum())},
    )
    narrower = [
        _narrowed(row, weights, config.aspect) for row, weights in zip(rows, weight_PN, strict=True) if weights.any()
    ]
    why = dict.fromkeys(frame["id"], f"not every response has a score of {config.aspect}")
    why |= dict(zip(ids, verdicts.reason, strict=True))
    dropped = [(one, reason, None) for one, reason in why.items() if reason]
    return audited(result_of(frame, narrower, dropped, {"note": _note(strategy, r_squared)}), verdicts)


def _strategy(
    rows: Sequence[Mapping[str, Any]], reward_PN: NDArray[np.float64], config: Config
) -> tuple[Strategy, dict[str, float | None]]:
    """The strategy to use, and every strategy's R^2 where there is a truth (None where it cannot be measured)."""
    if not config.truth:
        return config.strategy, {}  # type: ignore[return-value]
    known = [at for at, row in enumerate(rows) if rewards_of(row, config.truth) is not None]
    if not known:
        raise DataError(f"no row has a score of {config.truth} for every response; R^2 cannot be measured")
    judged, ids = [rows[at] for at in known], [rows[at]["id"] for at in known]
    truth_PN = _padded(judged, config.truth)
    best, measured = best_strategy(ids, reward_PN[known][:, : truth_PN.shape[1]], truth_PN, seed=config.seed)
    summary = {str(name): None if np.isnan(value) else round(value, 4) for name, value in measured.items()}
    return (best if config.strategy == "auto" else config.strategy), summary


def _note(strategy: Strategy, r_squared: Mapping[str, float | None]) -> str:
    """The strategy used, and how well each one's rewards explain the truth, for the screen."""
    if not r_squared:
        return f"strategy {strategy}, as the recipe says"
    measured = ", ".join(f"{name} {'-' if value is None else f'{value:.4f}'}" for name, value in r_squared.items())
    return f"strategy {strategy}; R^2 of the truth over the reward: {measured}"


def _ragged(value_PN: NDArray[np.float64], rows: Sequence[Mapping[str, Any]]) -> NDArray[np.object_]:
    """[P] arrays without the padding: evidence is stored per row, and one long row must not widen all others."""
    values = np.empty(len(rows), dtype=object)
    for at, row in enumerate(rows):
        values[at] = value_PN[at, : len(row["responses"])]
    return values


def _padded(rows: Sequence[Mapping[str, Any]], aspect: str) -> NDArray[np.float64]:
    """[P, N] scores, NaN where a row has fewer responses."""
    scores = [rewards_of(row, aspect) or [] for row in rows]
    result = np.full((len(rows), max(map(len, scores))), np.nan)
    for at, values in enumerate(scores):
        result[at, : len(values)] = values
    return result


def _narrowed(row: Mapping[str, Any], weights: NDArray[np.float64], aspect: str) -> dict[str, object]:
    """The row with the responses that weigh something, ranked by reward, their weights among the scores."""
    places = np.flatnonzero(weights > 0).tolist()
    rewards = rewards_of(row, aspect) or []
    result = narrowed(row, places, ranks=ranks_of([rewards[at] for at in places]), **scored_label(row, aspect))
    answers = [
        {"response": new, "aspect": WEIGHT, "value": round(float(weights[at]), DIGITS)} for new, at in enumerate(places)
    ]
    return result | {"scores": [*(result["scores"] or []), *answers]}
