"""Whose responses are these: rows flagged by how far their authors are from the policy that is to be trained.

`policy` is the author's name as `generate` stores it (model and version). A response is "on" where the policy wrote it,
"near" where another version did whose mean log-probability per token moved by at most `near` nats (scores logp_now and
logp_then, where the data has them), else "off" or "unknown" (rmkit.reliability.on_policy). A row is what its worst
response is; rows whose flag is not in `keep` are dropped, all flags go to the audit. With `aspect` (rewards) the facts
also tell how much of the policy's own responses reaches the best rewards: where little does, a loss that uses negatives
(DPO, on-policy RL) is advised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl

from data_pipelines.algorithms.responses import rewards_of
from data_pipelines.algorithms.weighing import Action, weighed
from data_pipelines.steps import Context, StepResult
from rmkit.errors import ConfigError
from rmkit.reliability.label_weights import LabelWeights, reasons
from rmkit.reliability.on_policy import NEAR, coverage, policy_flags

Flag = Literal["on", "near", "unknown", "off"]
FLAGS: tuple[Flag, ...] = ("on", "near", "unknown", "off")  # from best to worst


@dataclass(frozen=True, kw_only=True)
class Config:
    policy: str
    keep: tuple[Flag, ...] = ("on", "near")
    near: float = NEAR
    aspect: str = ""
    action: Action = "drop"

    def __post_init__(self) -> None:
        if not self.policy:
            raise ConfigError("on_policy: name the policy: policy = AUTHOR, as the data's generators have it")
        if self.near < 0:
            raise ConfigError(f"on_policy: near is a difference in nats, at least 0; got {self.near}")


def step(frame: pl.DataFrame, config: Config, context: Context) -> StepResult:
    """The rows whose responses the policy wrote, or could have written."""
    rows = [row for row in frame.to_dicts() if row["responses"]]
    places = [(at, spot) for at, row in enumerate(rows) for spot in range(len(row["responses"]))]
    scores = [{(one["aspect"], one["response"]): one["value"] for one in row["scores"] or []} for row in rows]
    flags = policy_flags(
        [f"{rows[at]['id']} {spot}" for at, spot in places],
        [rows[at]["generators"][spot] if rows[at]["generators"] else None for at, spot in places],
        policy=config.policy,
        logp_now=[scores[at].get(("logp_now", spot), np.nan) for at, spot in places],
        logp_then=[scores[at].get(("logp_then", spot), np.nan) for at, spot in places],
        near=config.near,
    )
    worst = np.zeros(len(rows), dtype=np.int64)
    np.maximum.at(worst, [at for at, _ in places], [FLAGS.index(flag) for flag in flags.evidence["flag"].tolist()])
    flag = np.array(FLAGS)[worst]
    selected = np.isin(flag, config.keep)
    verdicts = LabelWeights(
        method="on_policy",
        ids=tuple(row["id"] for row in rows),
        weight=selected.astype(np.float64),
        reason=reasons(len(rows), {f"a response is {name} the policy": ~selected & (flag == name) for name in FLAGS}),
        evidence={"flag": flag},
        facts={"responses": dict(flags.facts), "rows": {name: int((flag == name).sum()) for name in FLAGS}},
    )
    return weighed(frame, verdicts, action=config.action, facts=_coverage(rows, config))


def _coverage(rows: list[dict[str, Any]], config: Config) -> dict[str, object]:
    """Share of the policy's responses with a reward near the best of all, where rewards are named."""
    scored = [(row, rewards) for row in rows if config.aspect and (rewards := rewards_of(row, config.aspect))]
    if not scored:
        return {}
    own = [
        reward
        for row, rewards in scored
        for author, reward in zip(row["generators"] or [], rewards, strict=False)
        if author == config.policy
    ]
    share, low = coverage(own, max(max(rewards) for _, rewards in scored))
    advice = "the best rewards lie outside the policy's responses: use a loss with negatives (DPO, on-policy RL)"
    return {"coverage": round(share, 4)} | ({"note": advice} if low else {})
