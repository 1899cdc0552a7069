"""Scoring rules, one per file: pure functions from items and answers to credits.

    pairs          chosen strictly above rejected (RewardBench 1, PPE-style correctness, any pair set)
    best_of        the one right answer above all wrong ones, a shared maximum split (RewardBench 2)
    ties           RewardBench 2 Ties: all right answers above all wrong ones, and closer to each other than to them
    rmbench        the 3 x 3 style matrix of RM-Bench
    judgebench     both orders for judges, a single game for reward models
    first_error    the first wrong step of a solution (ProcessBench)
    nway           rankings and ratings of many replies, ties in the gold labels included
    annotators     agreement with each annotator against the agreement of annotators with each other

An unscored item leaves numerators and denominators, and beside that number stands the one over all items, in which it
earns what the suite's keys `unscored` (models that score) and `judge_unscored` (judges) say: nothing, or a fair draw
among its candidates. How credits become sections and totals is declared in each suite's TOML and computed by
`measures`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from evaluation.scoring import annotators, judgebench, nway, pairs, processbench, rewardbench2, rmbench
from evaluation.suites.items import Answer, Credit, Item
from evaluation.suites.suite import Suite
from rmkit.types import ModelKind


def credit_table(
    suite: Suite, items: Sequence[Item], answers: Mapping[str, Answer], *, kind: ModelKind = "explicit"
) -> list[Credit]:
    """The credits of every item that has an answer, by the rule of its subset. Answers with `p`, and all answers of a
    model of the kind `generative`, are a judge's."""
    answered = [item for item in items if item.id in answers]
    by_rule: dict[str, list[Item]] = {}
    for item in answered:
        by_rule.setdefault(suite.rule_of(item.subset), []).append(item)
    result = [credit for rule, group in by_rule.items() for credit in _credits(suite, rule, group, answers, kind)]
    chances = {item.id: _chance(suite, item, answers[item.id], kind) for item in answered}
    return [
        replace(credit, earned_of_all=chances[credit.item] * credit.possible_of_all)
        if credit.unscored and credit.earned_of_all is None
        else credit
        for credit in result
    ]


def _judged(answer: Answer, kind: ModelKind) -> bool:
    return bool(answer.p) or kind == "generative"


def _chance(suite: Suite, item: Item, answer: Answer, kind: ModelKind) -> float:
    """What the suite's own count gives to an unscored item, of 1."""
    policy = suite.judge_unscored if _judged(answer, kind) else suite.unscored
    match suite.rule_of(item.subset):
        case "pairs" | "judgebench" if policy == "chance":
            return 0.5
        case "best_of" if policy == "chance":
            return 1 / max(len(answer.scores), len(item.candidates.completions) if item.candidates else 2)
    return 0.0


def _credits(
    suite: Suite, rule: str, items: Sequence[Item], answers: Mapping[str, Answer], kind: ModelKind
) -> list[Credit]:
    match rule:
        case "pairs":
            return [
                pairs.credit(
                    i, answers[i.id], ties=suite.ties, judge_ties=suite.judge_ties, unread=suite.judge_unscored
                )
                for i in items
            ]
        case "best_of":
            return [rewardbench2.best_of(i, answers[i.id], judged=_judged(answers[i.id], kind)) for i in items]
        case "ties":
            return rewardbench2.ties(items, answers)
        case "rmbench":
            return [credit for i in items for credit in rmbench.credits(i, answers[i.id])]
        case "judgebench":
            return [judgebench.credit(i, answers[i.id]) for i in items]
        case "first_error":
            return [processbench.credit(i, answers[i.id]) for i in items]
        case "nway":
            return [credit for i in items for credit in nway.credits(i, answers[i.id])]
        case "annotators":
            return [credit for i in items for credit in annotators.credits(i, answers[i.id])]
    raise AssertionError(rule)  # Suite has checked it
