"""Scoring rules, one per file, by name in the group `rules` of `rmkit.plugins`: pure functions from items and answers
to credits.

    pairs          chosen strictly above rejected (RewardBench 1, PPE-style correctness, any pair set)
    best_of        the one right answer above all wrong ones, a shared maximum split (RewardBench 2)
    ties           RewardBench 2 Ties: all right answers above all wrong ones, and closer to each other than to them
    rmbench        the 3 x 3 style matrix of RM-Bench
    judgebench     both orders for judges, a single game for reward models
    first_error    the first wrong step of a solution (ProcessBench)
    nway           rankings and ratings of many replies, ties in the gold labels included
    absolute       labels of single responses: AUROC, average precision, precision and recall, Brier, kappa
    annotators     agreement with each annotator against the agreement of annotators with each other
    both_orders    agreement of judges in both orders with verdicts that may be ties, and their consistency (Auto-J)
    median_vote    agreement with the median of several votes (AlpacaEval's human agreement)
    step_f1        right and wrong steps, F1 of either (PRMBench's PRMScore)
    criteria_met   whether a response meets a criterion, against each person (HealthBench's meta-evaluation)

An unscored item leaves numerators and denominators, and beside that number stands the one over all items, in which it
earns what the suite's keys `unscored` (models that score) and `judge_unscored` (judges) say: nothing, or a fair draw
among its candidates. How credits become sections and totals is declared in each suite's TOML and computed by
`measures`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from evaluation.scoring.rule import judged, rule_of
from evaluation.suites.items import Answer, Credit, Item
from evaluation.suites.suite import Suite
from rmkit.garbage import few_full_collections
from rmkit.types import ModelKind


@few_full_collections()
def credit_table(
    suite: Suite, items: Sequence[Item], answers: Mapping[str, Answer], *, kind: ModelKind = "explicit"
) -> list[Credit]:
    """The credits of every item that has an answer, by the rule of its subset."""
    answered = [item for item in items if item.id in answers]
    by_rule: dict[str, list[Item]] = {}
    for item in answered:
        by_rule.setdefault(suite.rule_of(item.subset), []).append(item)
    result = [
        credit
        for group in by_rule.values()
        for credit in rule_of(suite, group[0].subset).credits(suite, group, answers, kind)
    ]
    chances = {item.id: _chance(suite, item, answers[item.id], kind) for item in answered}
    return [
        replace(credit, earned_of_all=chances[credit.item] * credit.possible_of_all)
        if credit.unscored and credit.earned_of_all is None
        else credit
        for credit in result
    ]


def _chance(suite: Suite, item: Item, answer: Answer, kind: ModelKind) -> float:
    """What the suite's own count gives to an unscored item, of 1."""
    policy = suite.judge_unscored if judged(answer, kind) else suite.unscored
    chance = rule_of(suite, item.subset).chance
    return chance(item, answer) if policy == "chance" and chance else 0.0
