"""Discussions as rewards of their roles: who solved, who criticized, who scored (CoMAS, arXiv:2510.08529).

    s = (x - low) / (high - low)      solver s, evaluator 1 - s, scorer 0; without a readable x: scorer -1, the others 0

A judgment of a solution with a reason (the critique) and a rating (the score x) is one discussion. Each role has a unit
of its own and the reward in a rating of the role's name. Names of agents reach no prompt. The rewards are zero-sum and
invite collusion: hold the scores against verified items with `rmkit.reliability.score_audit`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean
from typing import Annotated

from data_pipelines.converters import Derived, Example, NotConvertibleError
from rmkit.errors import ConfigError
from rmkit.ids import assistant_message, messages_json, parse_messages
from rmkit.types import Completion, Message

SOLVER, EVALUATOR, SCORER = "solver", "evaluator", "scorer"


@dataclass(frozen=True, kw_only=True)
class Config:
    aspect: Annotated[str, "the rating that is the score"] = "rating"
    low: Annotated[float, "the lowest score"] = 1.0
    high: Annotated[float, "the highest score"] = 3.0
    criticize: Annotated[str, "asks the evaluator"] = (
        "Criticize this solution: say what is wrong in it, or that nothing is."
    )
    rate: Annotated[str, "asks the scorer"] = (
        "How well does the solution stand after this critique? End with the score."
    )

    def __post_init__(self) -> None:
        if self.low >= self.high:
            raise ConfigError(f"discussions: low must be below high, got {self.low} and {self.high}")


@dataclass(frozen=True, slots=True)
class RoleRewards:
    """What one score gives to the three roles."""

    solver: float
    evaluator: float
    scorer: float


def role_rewards(score: float | None, *, low: float = 1.0, high: float = 3.0) -> RoleRewards:
    """Of a score; None, NaN and what lies outside [low, high] is unreadable."""
    if score is None or not low <= score <= high:
        return RoleRewards(0.0, 0.0, -1.0)
    s = (score - low) / (high - low)
    return RoleRewards(s, 1 - s, 0.0)


def convert(example: Example, config: Config) -> Iterator[Derived]:
    """Units of kind single: the solution with its mean reward, then critique and score of each discussion."""
    if len(example["responses"]) != 1:
        raise NotConvertibleError("a discussion is about one solution")
    (solution,) = example["responses"]
    votes = [(vote, _score(vote, config.aspect)) for vote in example["votes"] if vote["rationale"]]
    if not votes:
        raise NotConvertibleError("no judgment with a reason")
    rewards = [role_rewards(score, low=config.low, high=config.high) for _, score in votes]
    yield _unit(solution, SOLVER, fmean(one.solver for one in rewards), origin=0)
    shown = f"{_talk(example['prompt'])}\n\nSolution:\n{Completion(parse_messages(solution)).text}"
    for (vote, score), reward in zip(votes, rewards, strict=True):
        critique = vote["rationale"]
        yield _unit(assistant_message(critique), EVALUATOR, reward.evaluator, prompt=f"{shown}\n\n{config.criticize}")
        if score is not None:
            asked = f"{shown}\n\nCritique:\n{critique}\n\n{config.rate}"
            yield _unit(assistant_message(f"{score:g}"), SCORER, reward.scorer, prompt=asked)


def _unit(response: str, role: str, reward: float, *, prompt: str | None = None, origin: int | None = None) -> Derived:
    return Derived(
        responses=[response],
        origins=[origin],
        prompt=None if prompt is None else messages_json((Message("user", prompt),)),
        scores=[(0, role, reward)],
        n_votes=0,
        meta={"role": role},
    )


def _score(vote: Example, aspect: str) -> float | None:
    values = [one["value"] for one in vote["scores"] or () if one["aspect"] == aspect]
    return float(values[0]) if values and not math.isnan(values[0]) else None


def _talk(prompt: str) -> str:
    *before, question = parse_messages(prompt)
    turns = [f"{message.role}: {message.content}" for message in before]
    return "\n\n".join([*turns, question.content if not before else f"{question.role}: {question.content}"])
