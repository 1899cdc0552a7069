"""Clause-wise scoring: every criterion of a rubric is asked on its own, so none can color another (SafeWatch, B31).

Each (response, criterion) is one yes/no call that does not know of the others; hard rules with code make no call at
all. So the result cannot depend on the order of the clauses, and a clause can be added without asking the others again.
Thresholds are per clause, since a judge's probabilities are calibrated for each clause apart (`clause_thresholds`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rmkit.errors import ConfigError
from rmkit.judge import Context, Judge
from rmkit.types import Candidates, Score
from rmkit.verifiers.rules import compiled
from rubrics.aggregate import Aggregate, Rule, aggregate_group
from rubrics.clause_thresholds import centered
from rubrics.criteria import Criterion


@dataclass(frozen=True, slots=True)
class ClauseScores:
    """One response: its reward and, per criterion, the probability that it is met, evidence, and whether it passes."""

    aggregate: Aggregate
    criteria: tuple[str, ...]
    met: tuple[float | None, ...]
    evidence: tuple[str | None, ...]
    passed: tuple[bool | None, ...]

    @property
    def score(self) -> Score:
        """As a reward model's score; each criterion that was scored is an aspect, named by its text."""
        named = zip(distinct(self.criteria), self.met, strict=True)
        aspects = {name: value for name, value in named if value is not None}
        if self.aggregate.coverage == 0:
            return Score.failed("no criterion could be scored")
        return Score(value=self.aggregate.value, aspects=aspects)


def distinct(names: Sequence[str]) -> list[str]:
    """The names, a repeated one with its number: "kind", "kind (2)"."""
    seen: Counter[str] = Counter()
    results = []
    for name in names:
        seen[name] += 1
        results.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return results


def score_clauses(
    judge: Judge | None,
    items: Sequence[tuple[Candidates, Sequence[Criterion]]],
    *,
    rule: Rule = "gated",
    thresholds: Mapping[str, float] | None = None,
    otherwise: float = 0.5,
) -> list[list[ClauseScores]]:
    """[item][response] scores. `thresholds` by criterion text, `otherwise` for all others; sums and gates take the
    probabilities with their threshold moved to one half, `met` holds them as they are. The judge must be of the form
    yes_no, and may be None where every criterion is checked by code.

    Raises ConfigError for another judge, DataError for a faulty check or senseless weights.
    """
    requests = [(item, criterion) for item, criteria in items for criterion in criteria if not criterion.check]
    answers: Iterator[list[Score]] = iter(())
    if judge is not None:
        if judge.config.form != "yes_no":
            raise ConfigError(f"clauses are yes/no questions; the judge {judge.config.name} is {judge.config.form}")
        judged = judge.judged_under(
            (item, Context(rubric=_question(criterion), reference=item.reference or "")) for item, criterion in requests
        )
        answers = iter([result.scores() for result in judged])
    elif requests:
        raise ConfigError(f"no code checks {requests[0][1].criterion!r}: a judge has to")
    names = {criterion.criterion for _, criteria in items for criterion in criteria if not criterion.check}
    known = {name: (thresholds or {}).get(name, otherwise) for name in names}
    return [_scored(item, criteria, answers, rule, known) for item, criteria in items]


def _scored(
    item: Candidates,
    criteria: Sequence[Criterion],
    answers: Iterator[list[Score]],
    rule: Rule,
    thresholds: Mapping[str, float],
) -> list[ClauseScores]:
    columns: list[list[float | None]] = []
    evidence: list[list[str | None]] = []
    for criterion in criteria:
        if criterion.check:
            check = compiled(criterion.check)
            verdicts = [check(completion.text) for completion in item.completions]
            columns.append([None if one is None else float(one) for one in verdicts])
            evidence.append([None] * len(verdicts))
        else:
            scores = next(answers)
            columns.append([None if score.unscored else score.value for score in scores])
            evidence.append([score.rationale for score in scores])
    rows = [[column[i] for column in columns] for i in range(len(item.completions))]
    limits = [thresholds.get(criterion.criterion, 0.5) for criterion in criteria]
    moved = [
        [None if value is None else centered(value, limit) for value, limit in zip(row, limits, strict=True)]
        for row in rows
    ]
    return [
        ClauseScores(
            aggregate=result,
            criteria=tuple(criterion.criterion for criterion in criteria),
            met=tuple(row),
            evidence=tuple(column[i] for column in evidence),
            passed=tuple(None if value is None else value >= limit for value, limit in zip(row, limits, strict=True)),
        )
        for i, (row, result) in enumerate(zip(rows, aggregate_group(criteria, moved, rule=rule), strict=True))
    ]


def _question(criterion: Criterion) -> str:
    return criterion.criterion if not criterion.explanation else f"{criterion.criterion}\n({criterion.explanation})"
