"""A rubric file as a reward model: a judge's TOML with a third table, [rubric].

    [judge]                        [rubric]
    name = "helpful, by clause"    file = "helpful.toml"     # beside this TOML
    form = "yes_no"                rule = "gated"            # weighted | gated | product

Every criterion is asked on its own (`clauses`), hard rules run as code, and the score is their aggregate in [0, 1];
`aspects` holds each criterion by its text. A response none of whose criteria could be scored is unscored. Where code
checks every criterion, [rubric] is all that the TOML needs, and nobody is asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from rmkit.config import build, read_toml
from rmkit.errors import DataError
from rmkit.ids import canonical_json, content_hash
from rmkit.judge import Judge, load_judge
from rmkit.ledger import Ledger, open_ledger
from rmkit.types import Candidates, Comparison, ModelInfo, Score, compare_by_score
from rmkit.verifiers.rules import compiled
from rubrics.aggregate import check_weights
from rubrics.clause_thresholds import read_thresholds
from rubrics.clauses import score_clauses
from rubrics.criteria import Criterion, parse_rubric
from rubrics.rubric_file import Rubric, read_rubric, use

GroupFree = Literal["weighted", "gated", "product"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RubricConfig:
    """`file` relative to the TOML, empty where items bring their own; `rule` as in `aggregate` (normalized needs a
    group, so no single score has it); `thresholds` a file of `rmkit rubrics calibrate`, relative to the TOML."""

    file: str = ""
    rule: GroupFree = "gated"
    thresholds: str = ""


class RuleRewardModel:
    """A pointwise reward model of a rubric that code checks in full."""

    _rubric: Rubric | None

    _thresholds: Mapping[str, float] = MappingProxyType({})
    _otherwise = 0.5

    def __init__(self, rubric: Rubric, *, rule: GroupFree = "gated") -> None:
        self._judge: Judge | None = None
        self._rubric = rubric
        self._rule = rule
        self.info = ModelInfo(rubric.ref, "explicit", "rating", True, content_hash(f"{rubric.hash} {rule}"))

    def score(self, batch: Sequence[Candidates]) -> list[list[Score]]:
        """See `RewardModel`. An item whose rubric is missing or cannot be used is unscored."""
        criteria = [self._criteria(item) for item in batch]
        usable = [(item, one) for item, one in zip(batch, criteria, strict=True) if not isinstance(one, str)]
        rows = iter(
            score_clauses(self._judge, usable, rule=self._rule, thresholds=self._thresholds, otherwise=self._otherwise)
        )
        return [
            [Score.failed(one)] * len(item.completions)
            if isinstance(one, str)
            else [clauses.score for clauses in next(rows)]
            for item, one in zip(batch, criteria, strict=True)
        ]

    def _criteria(self, item: Candidates) -> tuple[Criterion, ...] | str:
        """What an item is judged by, or why it cannot be."""
        if self._rubric is not None:
            return self._rubric.criteria
        if not item.rubric:
            return "the item brings no rubric"
        try:
            criteria = parse_rubric(list(item.rubric))
            check_weights(criteria, self._rule)
            for criterion in criteria:
                if criterion.check:
                    compiled(criterion.check)
        except DataError as error:
            return f"the item's rubric cannot be used: {error}"
        return criteria

    def compare(self, batch: Sequence[Candidates]) -> list[Comparison]:
        """See `RewardModel`: by value; equal is a tie."""
        return compare_by_score(self.score, batch, p_first=lambda a, b: (1 + (a > b) - (a < b)) / 2)


class ClauseRewardModel(RuleRewardModel):
    """The same with a judge, of the form yes_no, for what no code checks."""

    def __init__(
        self,
        judge: Judge,
        rubric: Rubric | None,
        *,
        rule: GroupFree = "gated",
        thresholds: Mapping[str, float] | None = None,
        otherwise: float = 0.5,
    ) -> None:
        """`thresholds` by criterion, `otherwise` for all others."""
        self._judge: Judge = judge
        self._rubric = rubric
        self._rule = rule
        self._thresholds, self._otherwise = thresholds or {}, otherwise
        parts = [judge.info.fingerprint, rubric.hash if rubric else "of the item", rule]
        parts += [canonical_json([self._thresholds, otherwise])] if thresholds else []
        fingerprint = content_hash(" ".join(parts))
        self.info = replace(judge.info, scale="rating", pointwise=True, fingerprint=fingerprint)

    @property
    def rubric(self) -> Rubric | None:
        """The file's, None where items bring their own."""
        return self._rubric

    def report(self) -> dict[str, object]:
        """As `Judge.report`."""
        return self._judge.report()

    def close(self) -> None:
        """End the judge's thread and connections."""
        self._judge.close()


def load(path: Path, *, ledger: Ledger | None = None) -> RuleRewardModel:
    """The model of a judge's TOML with the table [rubric]; the rubric's first use is recorded in the ledger.

    A ClauseRewardModel unless code checks every criterion; [judge] and [generator], if any, are not read then.
    Raises ConfigError where TOML or rubric file are wrong, or where the file was changed after it had been used.
    """
    ledger = ledger or open_ledger()
    config = build(RubricConfig, read_toml(path)["rubric"], where=f"{path} [rubric]")
    thresholds, otherwise = read_thresholds(path.parent / config.thresholds) if config.thresholds else ({}, 0.5)
    if not config.file:
        judge = load_judge(path, ledger=ledger)
        return ClauseRewardModel(judge, None, rule=config.rule, thresholds=thresholds, otherwise=otherwise)
    rubric = read_rubric(path.parent / config.file)
    use(rubric, ledger)
    if all(criterion.check for criterion in rubric.criteria):
        return RuleRewardModel(rubric, rule=config.rule)
    judge = load_judge(path, ledger=ledger)
    return ClauseRewardModel(judge, rubric, rule=config.rule, thresholds=thresholds, otherwise=otherwise)
