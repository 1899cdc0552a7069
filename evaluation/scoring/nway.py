"""Many replies to one prompt with gold ratings, ranks or right/wrong labels; ties among them are kept.

    pairs   share of the pairs with different gold values that the model orders the same way; a model's tie earns 0
    top     |M and G| / |M|: M are the replies with the model's highest score, G those with the highest gold value
            (what a fair draw among the model's favorites would win; 1/k on a single gold reply, as RewardBench 2)

`gold["values"]` are up-is-better, null where a reply has none. A prompt whose known values are all equal decides
nothing and earns no credit. With right/wrong labels, `pairs` is PPE's pairwise correctness (Frick et al. 2024, arXiv
2410.14872) and `top` its best-of-N accuracy over the prompts that have a right and a wrong reply. Every prompt counts
once, however many replies it has.
"""

from __future__ import annotations

import math
from itertools import combinations

from evaluation.scoring.rule import Rule, each
from evaluation.suites.items import Answer, Credit, Item, unscored_credit


def credits(item: Item, answer: Answer) -> list[Credit]:
    """The credits in `subset/pairs` and `subset/top`; none where the gold values decide nothing."""
    gold = [math.nan if value is None else float(value) for value in item.gold["values"]]
    if len({value for value in gold if not math.isnan(value)}) < 2:
        return []
    scores = answer.scores or (math.nan,) * len(gold)
    known = [(g, s) for g, s in zip(gold, scores, strict=True) if not math.isnan(g)]
    if any(math.isnan(score) for _, score in known):
        return [unscored_credit(item, f"{item.subset}/{part}") for part in ("pairs", "top")]
    return [_pairs(item, known), _top(item, known)]


def _pairs(item: Item, known: list[tuple[float, float]]) -> Credit:
    margins = [(s - t) * (1 if g > h else -1) for (g, s), (h, t) in combinations(known, 2) if g != h]
    earned = sum(margin > 0 for margin in margins) / len(margins)
    return Credit(item.id, item.cluster, f"{item.subset}/pairs", earned, tie=0 in margins)


def _top(item: Item, known: list[tuple[float, float]]) -> Credit:
    best_gold, best_score = max(g for g, _ in known), max(s for _, s in known)
    favorites = [g for g, s in known if s == best_score]
    earned = favorites.count(best_gold) / len(favorites)
    return Credit(item.id, item.cluster, f"{item.subset}/top", earned, tie=len(favorites) > 1)


def _order(item: Item) -> list[tuple[int, int]]:
    values = item.gold["values"]
    known = [i for i, value in enumerate(values) if value is not None]
    decided = [(i, j) for i, j in combinations(known, 2) if values[i] != values[j]]
    return [(i, j) if values[i] > values[j] else (j, i) for i, j in decided]


RULE = Rule(each(credits), order=_order)
