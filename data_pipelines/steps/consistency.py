"""CREAM: pairs of best and worst response, whose label is as soft as two models' rankings of the responses disagree.

`current` and `previous` name the scores to compare (two reward models, see `score`; CREAM's are the implicit rewards of
the policy now and one round before). The pair is the current model's best against its worst response; p of the better
one is the consistency C in [1/2, 1], the mean over all rows ("avg") or each row's own ("dyn", from four responses on).
Rows are matched by id; one that only the current model scored takes the mean (rmkit.reliability.cream).
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from data_pipelines.algorithms.responses import as_pair, result_of, rewards_of
from data_pipelines.algorithms.weighing import weighed
from data_pipelines.steps import Context, StepResult
from rmkit.errors import ConfigError
from rmkit.reliability.cream import How, consistency


@dataclass(frozen=True, kw_only=True)
class Config:
    current: str
    previous: str
    how: How = "avg"

    def __post_init__(self) -> None:
        if not self.current or not self.previous or self.current == self.previous:
            raise ConfigError(f"consistency: name two different scores, got {self.current!r} and {self.previous!r}")


def step(frame: pl.DataFrame, config: Config, context: Context) -> StepResult:
    """One softly labeled pair a row. Raises DataError where no row can be compared."""
    rows = {row["id"]: row for row in frame.to_dicts()}
    current, previous = (
        {name: rewards for name, row in rows.items() if (rewards := rewards_of(row, aspect)) is not None}
        for aspect in (config.current, config.previous)
    )
    result = consistency(current, previous, how=config.how)
    dropped = [(name, f"not every response has a score of {config.current}", None) for name in rows.keys() - current]
    pair_rows = []
    for name, best, worst, why in zip(current, result.best, result.worst, result.verdicts.reason, strict=True):
        if best < 0:
            dropped.append((name, why, None))
            continue
        pair_rows.append(as_pair(rows[name], best, worst, current[name]) | {"n_votes": 0})
    pairs = result_of(frame, pair_rows, sorted(dropped), {})
    softened = weighed(pairs.kept, result.verdicts, action="soft_label")
    return softened._replace(dropped=pairs.dropped)
