"""Agreement and consistency of judges on pairs with ties (Auto-J, Li et al. 2023, arXiv 2310.05470, pairwise_eval.py).

    agreement     the verdict is the people's (a, b or tie) in both orders; of a model that scores, in the one game that
                  it plays
    consistency   of judges: the verdicts of both orders are equal
    decided       agreement where people do not say tie, which is what a model that never ties can reach

`gold["votes"]` holds one vote; of several the first is taken. A judge that could be read in one order alone agrees in
none, as an unread verdict equals no label.
"""

from __future__ import annotations

import math

from evaluation.scoring.rule import Rule, each
from evaluation.suites.items import Answer, Credit, Item, unscored_credit


def credits(item: Item, answer: Answer) -> list[Credit]:
    """The credits in `subset/agreement`, `subset/decided` and, of judges, `subset/consistency`."""
    gold = item.gold["votes"][0]
    cells = [f"{item.subset}/{part}" for part in ("agreement", *(["decided"] if gold != "tie" else []))]
    orders = [p - 0.5 for p in answer.p] or [answer.margin]
    if all(map(math.isnan, orders)):
        return [unscored_credit(item, cell) for cell in cells]
    verdicts = ["unread" if math.isnan(one) else _verdict(one) for one in orders]
    agrees = float(all(verdict == gold for verdict in verdicts))
    result = [Credit(item.id, item.cluster, cell, agrees, tie="tie" in verdicts) for cell in cells]
    if len(verdicts) == 2:
        same = float(verdicts[0] == verdicts[1] and "unread" not in verdicts)
        result.append(Credit(item.id, item.cluster, f"{item.subset}/consistency", same))
    return result


def _verdict(margin: float) -> str:
    return "tie" if margin == 0 else "a" if margin > 0 else "b"


def _order(item: Item) -> list[tuple[int, int]]:
    return {"a": [(0, 1)], "b": [(1, 0)]}.get(item.gold["votes"][0], [])


RULE = Rule(each(credits), order=_order, compares=True)
