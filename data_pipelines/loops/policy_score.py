"""What language models think of every response, as scores: the implicit rewards of DPO, CREAM and SPIN.

    beta (log pi(y | x) - log ref(y | x))      sums over the tokens of the response, its end included
    beta log pi(y | x) / |y|                   without a reference, or where that is the policy itself

`aspect` names the score. Rows with a response that does not fit `max_length` tokens are dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import polars as pl

from data_pipelines.algorithms.responses import result_of
from data_pipelines.loops.policy import LogLikelihood, PolicyPair, log_likelihoods
from data_pipelines.steps import Context, StepResult
from rmkit.data.example import Example
from rmkit.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Config:
    policy: Annotated[str, "folder of a causal language model"]
    aspect: Annotated[str, "the name of the score"]
    reference: Annotated[str, "the model that likelihoods are measured against; empty: none, per token"] = ""
    beta: Annotated[float, "reward per unit of the log-ratio"] = 0.1
    max_length: Annotated[int, "longest text in tokens"] = 1024

    def __post_init__(self) -> None:
        if not self.policy or not self.aspect or self.beta <= 0:
            raise ConfigError("policy_score: name policy = FOLDER and aspect = NAME, beta above 0")


def step(frame: pl.DataFrame, config: Config, context: Context) -> StepResult:
    """Rows with the score beside those they had; `mean` of all."""
    rows = [row for row in frame.to_dicts() if row["responses"]]
    items = [Example(row).candidates for row in rows]
    texts = [PolicyPair(item.prompt, one.text, None) for item in items for one in item.completions]
    compared = config.reference not in ("", config.policy)
    policy = _likelihoods(config.policy, texts, config)
    reference = _likelihoods(config.reference, texts, config) if compared else policy
    values = [
        None if one is None or other is None else _value(one, other if compared else None, config.beta)
        for one, other in zip(policy, reference, strict=True)
    ]
    scored, place = [], 0
    dropped: list[tuple[str, str, str | None]] = [
        (row["id"], "no response to score", None) for row in frame.to_dicts() if not row["responses"]
    ]
    total = 0.0
    for row in rows:
        mine = values[place : place + len(row["responses"])]
        place += len(mine)
        known = [value for value in mine if value is not None]
        if len(known) < len(mine):
            dropped.append((row["id"], f"a response does not fit {config.max_length} tokens", None))
            continue
        total += sum(known)
        others = [one for one in row["scores"] or [] if one["aspect"] != config.aspect]
        own = [{"response": at, "aspect": config.aspect, "value": value} for at, value in enumerate(known)]
        scored.append(row | {"scores": [*others, *own]})
    count = sum(len(row["responses"]) for row in scored)
    facts = {"scored": len(scored)} | ({"mean": round(total / count, 6)} if count else {})
    return result_of(frame, scored, dropped, facts)


def _likelihoods(folder: str, texts: list[PolicyPair], config: Config) -> list[LogLikelihood | None]:
    from rmkit.models.transformer.pretrained import complete, load_tokenizer

    model = complete("AutoModelForCausalLM", Path(folder))
    return log_likelihoods(model, load_tokenizer(Path(folder)), texts, max_length=config.max_length)


def _value(policy: LogLikelihood, reference: LogLikelihood | None, beta: float) -> float:
    own = policy.total / policy.tokens if reference is None else policy.total - reference.total
    return round(beta * own, 6)
