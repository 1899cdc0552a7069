"""Pairs from reflection: the retry that came out right over the first answer that came out wrong (SEP).

A row holds the answers to one question in their rounds (rating `round`, 0 the first) with what was later verified of
them (rating `correct`). A first answer that was right, and one that no round within `rounds` put right, give nothing. A
retry that quotes what was verified (`evidence` in meta) knew the outcome and gives nothing either. Questions that time
decides need a split by time: step `time_split`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from data_pipelines.converters import Derived, Example, NotConvertibleError, ratings
from rmkit.errors import ConfigError
from rmkit.ids import parse_messages
from rmkit.types import Completion


@dataclass(frozen=True, kw_only=True)
class Config:
    aspect: Annotated[str, "the rating that says what came of an answer"] = "correct"
    round: Annotated[str, "the rating that numbers the rounds from 0"] = "round"
    right: Annotated[float, "an outcome of at least this is right"] = 0.5
    rounds: Annotated[int, "retries at most"] = 3

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ConfigError(f"reflections: rounds must be at least 1, got {self.rounds}")


def convert(example: Example, config: Config) -> Iterator[Derived]:
    """(right retry, wrong first answer) with p = [1, 0] and the retry's round in meta."""
    outcome, rounds = ratings(example, config.aspect), ratings(example, config.round)
    first = [at for at, number in enumerate(rounds) if number == 0]
    if len(first) != 1 or not outcome[first[0]] == outcome[first[0]]:
        raise NotConvertibleError("not one first answer with an outcome")
    if outcome[first[0]] >= config.right:
        raise NotConvertibleError("the first answer was right")
    mended = [at for at, value in enumerate(outcome) if value >= config.right and 1 <= rounds[at] <= config.rounds]
    if not mended:
        raise NotConvertibleError("no retry was right")
    retry = min(mended, key=lambda at: (rounds[at], at))
    evidence = json.loads(example["meta"] or "{}").get("evidence")
    if evidence and _quotes(example["responses"][retry], str(evidence)):
        raise NotConvertibleError("the retry quotes what was verified later")
    places = (retry, first[0])
    yield Derived(
        responses=[example["responses"][at] for at in places],
        origins=places,
        p=[1.0, 0.0],
        ranks=[0, 1],
        n_votes=0,
        meta={"round": int(rounds[retry])},
    )


def _quotes(response: str, evidence: str) -> bool:
    text = Completion(parse_messages(response)).text
    return " ".join(evidence.split()).casefold() in " ".join(text.split()).casefold()
