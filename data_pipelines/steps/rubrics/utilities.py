"""Utilities of a prompt's responses from a judge's verdicts on all their pairs: scores, ranks and a margin.

`model` compares every pair of a row's responses, a judge in both orders and by as many votes as it takes; verdicts in
which it contradicts itself count as the half that they are. Bradley-Terry utilities are fitted within the prompt
(rmkit.reliability.utilities); they are stored as scores of the aspect "utility", and the margin is best minus worst.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Annotated, Any

import polars as pl

from data_pipelines.algorithms.responses import SCORED, ranks_of, result_of
from data_pipelines.steps import Context, StepResult
from rmkit.data.example import Example
from rmkit.errors import ConfigError
from rmkit.reliability.utilities import utilities

ASPECT = "utility"


@dataclass(frozen=True, kw_only=True)
class Config:
    model: Annotated[str, "a judge's TOML, or any reward model that compares"]
    ridge: Annotated[float, "strength of the pull towards equal utilities"] = 0.1
    votes: Annotated[float, "how many verdicts one comparison counts for"] = 2.0

    def __post_init__(self) -> None:
        if not self.model or self.ridge <= 0 or self.votes <= 0:
            raise ConfigError("utilities: name model = MODEL; ridge and votes must be positive")


def step(frame: pl.DataFrame, config: Config, context: Context) -> StepResult:
    """Rows with utilities; a row is dropped where no chain of verdicts joins all its responses."""
    from rmkit.models import load_model

    rows = [row for row in frame.to_dicts() if len(row["responses"] or ()) >= 2]
    items = [Example(row).candidates for row in rows]
    pairs = [list(combinations(range(len(item.completions)), 2)) for item in items]
    requests = [
        item.of(item.completions[i], item.completions[j])
        for item, own in zip(items, pairs, strict=True)
        for i, j in own
    ]
    verdicts = iter(load_model(config.model).compare(requests))
    scored: list[dict[str, Any]] = []
    dropped: list[tuple[str, str, str | None]] = [
        (row["id"], "fewer than two responses", None) for row in frame.to_dicts() if len(row["responses"] or ()) < 2
    ]
    failed = 0
    for row, own in zip(rows, pairs, strict=True):
        answers = [(pair, next(verdicts)) for pair in own]
        known = {pair: one.p_first for pair, one in answers if one.unscored is None}
        failed += len(own) - len(known)
        values = utilities(known, len(row["responses"]), ridge=config.ridge, votes=config.votes)
        if values is None:
            dropped.append((row["id"], "verdicts do not join all responses", None))
            continue
        plain = [round(value, 6) for value in values.tolist()]
        others = [one for one in row["scores"] or [] if one["aspect"] != ASPECT]
        scores = [*others, *({"response": at, "aspect": ASPECT, "value": value} for at, value in enumerate(plain))]
        label = {"scores": scores, "ranks": ranks_of(plain), "margin": round(max(plain) - min(plain), 6)}
        p = [float(value == max(plain)) for value in plain] if len(set(plain)) > 1 else None
        scored.append(row | label | {"p": p if len(plain) == 2 else None, "method": SCORED, "n_votes": 0})
    facts = {"comparisons": len(requests), "unscored": failed, "rows": len(scored)}
    return result_of(frame, scored, dropped, facts)
