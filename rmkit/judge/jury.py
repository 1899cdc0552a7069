"""A jury: several judges, or any models, with weights as one.

    [jury]
    name = "three"
    rule = "mean"                        # mean | vote
    least = 2                            # of so many judges at least an answer, else the item is unscored

    [[jury.judges]]
    model = "gpt.toml"                   # whatever a command takes as MODEL; a .toml or a folder relative to this file
    weight = 2.0

    [[jury.judges]]
    model = "judge:./lm?profile=rm-r1"

With weights w_k and P(first is better) p_k of the judges that answered:

    mean    sum w_k p_k / sum w_k                       ratings and probabilities alike, where all judges give the same
    vote    sum w_k [p_k > 1/2] / sum w_k               a tie is half a vote; always compares

A judge without an answer leaves the sums with its weight, and is counted: as many items as it did not answer stand in
the report. `aspects` of a score hold each judge's own. Panels of judges: Verga et al. 2024, arXiv 2404.18796.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import pstdev
from typing import Any, Literal, TypeVar

from rmkit.config import build, read_toml
from rmkit.errors import ConfigError
from rmkit.ids import canonical_json, content_hash
from rmkit.judge.tally import report_of
from rmkit.types import Candidates, Comparison, ModelInfo, RewardModel, Score, score_by_comparison

Rule = Literal["mean", "vote"]
Answer = TypeVar("Answer", list[Comparison], list[list[Score]])


@dataclass(frozen=True, slots=True, kw_only=True)
class JurorConfig:
    """A judge of the jury; `name` is what reports call it, by default the model's own."""

    model: str
    weight: float = 1.0
    name: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.weight < math.inf:
            raise ConfigError(f"weight: expected more than 0, got {self.weight}")


@dataclass(frozen=True, slots=True, kw_only=True)
class JuryConfig:
    """See the top of this file."""

    name: str
    judges: tuple[JurorConfig, ...]
    rule: Rule = "mean"
    least: int = 1

    def __post_init__(self) -> None:
        if len(self.judges) < 2:
            raise ConfigError(f"judges: a jury has at least two, got {len(self.judges)}")
        if not 1 <= self.least <= len(self.judges):
            raise ConfigError(f"least: expected 1 to {len(self.judges)}, got {self.least}")


@dataclass(frozen=True, slots=True)
class Juror:
    """A judge with its name and weight."""

    name: str
    weight: float
    model: RewardModel


class Jury:
    """A reward model over its jurors' answers. Pointwise where all of them are, on one scale, under the rule mean."""

    def __init__(self, name: str, jurors: Sequence[Juror], *, rule: Rule = "mean", least: int = 1) -> None:
        self.jurors = tuple(jurors)
        self.rule = rule
        self.least = least
        self.answered: Counter[str] = Counter()  # by juror; an item is a comparison or a completion
        self.unscored: Counter[str] = Counter()
        self.with_jury: Counter[str] = Counter()  # by juror: comparisons decided as the jury decided them
        self.decided: Counter[str] = Counter()  # by juror: comparisons that both decided
        self.items = 0
        infos = [juror.model.info for juror in self.jurors]
        alike = rule == "mean" and all(one.pointwise for one in infos) and len({one.scale for one in infos}) == 1
        parts = [rule, least, [[juror.weight, juror.model.info.fingerprint] for juror in self.jurors]]
        scale = infos[0].scale if alike else "win_logit"
        self.info = ModelInfo(name, "generative", scale, alike, content_hash(canonical_json(parts)))

    def compare(self, batch: Sequence[Candidates]) -> list[Comparison]:
        """See `RewardModel`. Where fewer than `least` jurors answered, unscored with their reasons."""
        return self.verdicts(self.opinions(batch))

    def opinions(self, batch: Sequence[Candidates]) -> list[list[Comparison]]:
        """[K][P] what each juror says of each pair."""
        return self._ask(lambda juror: juror.model.compare(batch))

    def verdicts(self, opinions_KP: Sequence[Sequence[Comparison]]) -> list[Comparison]:
        """[P] the jury's comparisons from its jurors'."""
        return [self._verdict(opinions) for opinions in zip(*opinions_KP, strict=True)]

    def score(self, batch: Sequence[Candidates]) -> list[list[Score]]:
        """See `RewardModel`."""
        if not self.info.pointwise:
            return score_by_comparison(self.compare, batch)
        scores_KPN = self._ask(lambda juror: juror.model.score(batch))
        return [[self._mean(scores) for scores in zip(*rows, strict=True)] for rows in zip(*scores_KPN, strict=True)]

    def report(self) -> dict[str, Any]:
        """What the judges report, together, and under `jury` each juror's part."""
        reports = [report_of(juror.model) for juror in self.jurors]
        return together([one for one in reports if one]) | {
            "jury": [
                {
                    "judge": juror.name,
                    "weight": juror.weight,
                    "answered": self.answered[juror.name],
                    "unscored": self.unscored[juror.name],
                    "with_jury": self.with_jury[juror.name] / decided
                    if (decided := self.decided[juror.name])
                    else None,
                    "decided": decided,
                }
                for juror in self.jurors
            ]
        }

    def close(self) -> None:
        """End the threads and connections of all judges."""
        for juror in self.jurors:
            if close := getattr(juror.model, "close", None):
                close()

    def _ask(self, ask: Callable[[Juror], Answer]) -> list[Answer]:
        with ThreadPoolExecutor(len(self.jurors)) as pool:  # judges wait for their endpoints, each for its own
            return list(pool.map(ask, self.jurors))

    def _verdict(self, opinions: Sequence[Comparison]) -> Comparison:
        scored = self._scored(opinions)
        if len(scored) < self.least:
            return Comparison.failed(self._too_few(opinions))
        votes = [(juror.weight, self._vote(one.p_first)) for juror, one in scored]
        total = math.fsum(weight for weight, _ in votes)
        p = math.fsum(weight * vote for weight, vote in votes) / total
        for juror, one in scored:
            if one.p_first != 0.5 and p != 0.5:
                self.decided[juror.name] += 1
                self.with_jury[juror.name] += (one.p_first > 0.5) == (p > 0.5)
        gaps = [(juror.weight, one.swap_gap) for juror, one in scored if one.swap_gap is not None]
        gap = math.fsum(w * g for w, g in gaps) / math.fsum(w for w, _ in gaps) if gaps else None
        rationale = "; ".join(f"{juror.name}: {one.p_first:.3g}" for juror, one in scored)
        return Comparison(min(max(p, 0.0), 1.0), swap_gap=gap, rationale=rationale)

    def _vote(self, p: float) -> float:
        return p if self.rule == "mean" else (1 + (p > 0.5) - (p < 0.5)) / 2

    def _mean(self, scores: Sequence[Score]) -> Score:
        scored = self._scored(scores)
        if len(scored) < self.least:
            return Score.failed(self._too_few(scores))
        total = math.fsum(juror.weight for juror, _ in scored)
        value = math.fsum(juror.weight * one.value for juror, one in scored) / total
        spread = pstdev([one.value for _, one in scored]) if len(scored) > 1 else None
        return Score(value, std=spread, aspects={juror.name: one.value for juror, one in scored})

    def _scored(self, answers: Sequence[Any]) -> list[tuple[Juror, Any]]:
        """The jurors with an answer, counted."""
        self.items += 1
        for juror, answer in zip(self.jurors, answers, strict=True):
            (self.unscored if answer.unscored else self.answered)[juror.name] += 1
        return [(juror, one) for juror, one in zip(self.jurors, answers, strict=True) if not one.unscored]

    def _too_few(self, answers: Sequence[Any]) -> str:
        missing = [
            f"{juror.name}: {one.unscored}" for juror, one in zip(self.jurors, answers, strict=True) if one.unscored
        ]
        return f"{len(self.jurors) - len(missing)} of {len(self.jurors)} judges answered ({'; '.join(missing)})"


_SUMS = (
    "items", "calls", "replies", "pairs_in_both_orders", "pairs_of_unlike_length", "paid_calls", "found_in_ledger",
    "failed_calls", "retries", "truncated", "prompt_tokens", "completion_tokens", "usd", "tokens_paid_before",
    "usd_paid_before", "usd_perhaps_billed_for_broken_calls",
)  # fmt: skip
_MEANS = {  # a mean -> the count that it is over
    "parse_rate": "replies",
    "label_mass": "replies",
    "swap_gap": "pairs_in_both_orders",
    "flip_rate": "pairs_in_both_orders",
    "first_slot": "items",
    "longer_wins": "pairs_of_unlike_length",
    "vote_majority": "items",
}


def together(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Reports of several judges as one: sums of counts, means over their counts, reasons and splits added up."""
    result: dict[str, Any] = {name: sum(one[name] for one in reports) for name in _SUMS}
    for name, over in _MEANS.items():
        known = [(one[name], one[over]) for one in reports if one[name] is not None]
        n = sum(count for _, count in known)
        result[name] = math.fsum(value * count for value, count in known) / n if n else None
    for name in ("unread", "vote_splits"):
        counts: Counter[str] = Counter()
        for one in reports:
            counts.update(one[name])
        result[name] = dict(counts)
    return result | {"budget_spent": any(one["budget_spent"] for one in reports)}


def load(path: Path) -> Jury:
    """The jury of a TOML file. Raises ConfigError where it is wrong, and whatever loading a judge raises."""
    from rmkit.plugins import resolve

    tables = read_toml(path)
    if unknown := sorted(set(tables) - {"jury"}):
        raise ConfigError(f"{path}: unknown {', '.join(unknown)}; a jury has the table [jury] alone")
    config = build(JuryConfig, tables["jury"], where=f"{path} [jury]")
    load_model = resolve("front_door", "load_model")
    jurors: list[Juror] = []
    seen: Counter[str] = Counter()
    for one in config.judges:
        beside = path.parent / one.model
        model = load_model(beside if beside.exists() else one.model)
        name = one.name or model.info.name
        seen[name] += 1
        jurors.append(Juror(name if seen[name] == 1 else f"{name} ({seen[name]})", one.weight, model))
    return Jury(config.name, jurors, rule=config.rule, least=config.least)
