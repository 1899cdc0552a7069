"""Rewards of a trained model for every response, as scores whose aspect is the model's name.

`label` true also ranks the responses by them, as the row's label: what AI feedback does. Rows that the model cannot
score in full are dropped with its reason, never given a made-up number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import fsum
from typing import Any

import polars as pl

from data_pipelines.algorithms.responses import SCORED, ranks_of, result_of
from data_pipelines.scopes import Rows
from data_pipelines.steps import Context, StepResult
from rmkit.data.example import Example
from rmkit.errors import ConfigError
from rmkit.types import RewardModel


@dataclass(frozen=True, kw_only=True)
class Config:
    """`model` is an artifact folder, a name under $RMKIT_HOME/models, `length`, or a verifier with its `options`."""

    model: str
    label: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.model:
            raise ConfigError("score: name the reward model: model = FOLDER")


def _with_mean(facts: dict[str, Any]) -> dict[str, Any]:
    total, n = facts.pop("total"), facts.pop("n")
    return facts | ({"mean": round(total / n, 6)} if n else {})


SCOPE = Rows(finish=_with_mean, gpu=True)


def step(frame: pl.DataFrame, config: Config, context: Context) -> StepResult:
    """Rows with the model's scores beside those they had."""
    model = scorer(config.model, config.options)
    aspect = model.info.name
    rows = frame.to_dicts()
    scorable = [row for row in rows if row["responses"]]
    answers = model.score([Example(row).candidates for row in scorable])
    scored_rows: list[dict[str, Any]] = []
    dropped: list[tuple[str, str, str | None]] = [
        (row["id"], "no response to score", None) for row in rows if not row["responses"]
    ]
    for row, scores in zip(scorable, answers, strict=True):
        why = next((one.unscored for one in scores if one.unscored), None)
        if why is not None:
            dropped.append((row["id"], "could not be scored", why))
            continue
        values = [one.value for one in scores]
        others = [one for one in row["scores"] or [] if one["aspect"] != aspect]
        settings = [{"response": at, "aspect": aspect, "value": value} for at, value in enumerate(values)]
        label = (
            {"ranks": ranks_of(values), "p": None, "margin": None, "method": SCORED, "n_votes": 0}
            if config.label
            else {}
        )
        scored_rows.append(row | {"scores": [*others, *settings]} | label)
    everything = [one["value"] for row in scored_rows for one in row["scores"] if one["aspect"] == aspect]
    facts = {"aspect": aspect, "fingerprint": model.info.fingerprint, "scored": len(scored_rows)}
    facts |= {"total": fsum(everything), "n": len(everything)}
    return result_of(frame, scored_rows, dropped, facts)


def scorer(name: str, options: Mapping[str, Any]) -> RewardModel:
    """The model, or the verifier with these options. Raises UsageError, ConfigError, ModelError."""
    if options:
        from rmkit.verifiers.verifier import load_verifier

        return load_verifier(name, options, trusted=True)
    from rmkit.models import load_model

    return load_model(name)
