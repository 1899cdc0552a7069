"""A scoring rule for suites: a pair is right where the chosen response leads by two points or more."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from evaluation.suites.items import Answer, Credit, Item, unscored_credit
from evaluation.suites.suite import Suite
from rmkit.types import ModelKind

LEAD = 2.0


def credits(suite: Suite, items: Sequence[Item], answers: Mapping[str, Answer], kind: ModelKind) -> list[Credit]:
    return [_credit(item, answers[item.id].margin) for item in items]


def _credit(item: Item, margin: float) -> Credit:
    if math.isnan(margin):
        return unscored_credit(item, item.subset)
    return Credit(item.id, item.cluster, item.subset, float(margin >= LEAD), 1.0)
