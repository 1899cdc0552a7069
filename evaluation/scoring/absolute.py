"""Labels of single responses (thumbs, ratings, compliance) against the scores that a model gives them, by subset.

    auroc               P(the better labeled of two responses scores higher); ratings of any number of levels
    average_precision   of finding the good ones
    precision, recall   of calling a response good from the suite's threshold on, by default probability 1/2
    brier               mean squared distance of probability and label, lower is better; an unscored one counts 1 of all
    kappa               quadratic weights, of ratings with three levels or more: a judge's rating rounded to a level;
                        other scores cut so that each level has as many responses as people gave it

`gold["label"]` is a number, up is better; `gold["good"]` says whether the response counts as good. Scores are
compared across prompts, which a reward of differences alone was never trained for: a low number says just that.
Precision, recall and Brier need a probability: they are there for scales that have one (`Answer.predicted`).

Parts that are no mean over items are given to the table as influences with that mean (`rmkit.metrics.absolute`), so
that intervals resample prompts and models are compared item by item as everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from evaluation.scoring.rule import Rule
from evaluation.suites.items import Answer, Credit, Item, unscored_credit
from evaluation.suites.suite import Suite
from rmkit.metrics.absolute import Array, average_precision, concordance, influences, quadratic_kappa
from rmkit.types import ModelKind


def credits(suite: Suite, items: Sequence[Item], answers: Mapping[str, Answer], kind: ModelKind) -> list[Credit]:
    """The credits in `subset/PART` for every part that the labels and the scores allow."""
    result = []
    for subset in dict.fromkeys(item.subset for item in items):
        members = [item for item in items if item.subset == subset]
        result += _of_subset(members, answers, kind, threshold=suite.threshold)
    return result


def _of_subset(
    items: Sequence[Item], answers: Mapping[str, Answer], kind: ModelKind, *, threshold: float
) -> list[Credit]:
    scored = [item for item in items if answers[item.id].scores and not math.isnan(answers[item.id].scores[0])]
    lost = [item for item in items if item not in scored] if len(scored) < len(items) else []
    score = np.array([answers[item.id].scores[0] for item in scored])
    label = np.array([float(item.gold["label"]) for item in scored])
    good = np.array([bool(item.gold["good"]) for item in scored])
    p = np.array([answers[item.id].predicted for item in scored])
    facts = np.stack([score, label, good], axis=1)
    parts: dict[str, Array | list[tuple[Item, float]]] = {}
    if len(np.unique(label)) > 1:
        parts["auroc"] = influences(lambda w: concordance(score, label, w), facts)[1]
    if 0 < good.sum() < len(good):
        parts["average_precision"] = influences(lambda w: average_precision(score, good, w), facts)[1]
    levels = np.unique(label)
    if len(levels) > 2 and len(np.unique(score)) > 1:
        ours, theirs = _levels(score, label, levels, kind), np.searchsorted(levels, label)
        parts["kappa"] = influences(lambda w: quadratic_kappa(ours, theirs, w), np.stack([ours, theirs], 1))[1]
    result = [
        Credit(item.id, item.cluster, f"{item.subset}/{name}", float(value))
        for name, values in parts.items()
        for item, value in zip(scored, values, strict=True)
    ]
    result += [unscored_credit(item, f"{item.subset}/{name}") for name in parts for item in lost]
    return result + (_with_probability(scored, lost, good, p, threshold) if len(p) and not np.isnan(p).any() else [])


def _with_probability(
    scored: Sequence[Item], lost: Sequence[Item], good: Array, p: Array, threshold: float
) -> list[Credit]:
    result = []
    for item, is_good, probability in zip(scored, good, p, strict=True):
        called = probability >= threshold
        hit, cell = float(called and is_good), item.subset
        if called:
            result.append(Credit(item.id, item.cluster, f"{cell}/precision", hit))
        if is_good:
            result.append(Credit(item.id, item.cluster, f"{cell}/recall", hit))
        result.append(Credit(item.id, item.cluster, f"{cell}/brier", float((probability - is_good) ** 2)))
    for item in lost:
        result.append(Credit(item.id, item.cluster, f"{item.subset}/brier", 0.0, 0.0, unscored=True, earned_of_all=1.0))
        result += [unscored_credit(item, f"{item.subset}/recall")] if item.gold["good"] else []
    return result


def _levels(score: Array, label: Array, levels: Array, kind: ModelKind) -> Array:
    """[n] the level, from 0, that each score stands for."""
    if kind == "generative" and levels[0] - 0.5 <= score.min() and score.max() <= levels[-1] + 0.5:
        nearest: Array = np.abs(score[:, None] - levels[None, :]).argmin(axis=1).astype(float)
        return nearest
    rank = np.argsort(np.argsort(score, kind="stable"), kind="stable")
    borders = np.cumsum([(label == level).sum() for level in levels])
    return np.searchsorted(borders, rank, side="right").astype(float)


RULE = Rule(credits, probabilities=True)
