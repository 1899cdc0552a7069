"""DPO pairs for a judge, from items its teacher failed: right against wrong samples of the SFT judge itself (RISE).

The SFT judge answers n times (8, temperature 1) in each order. A pair has one prompt, so right and wrong come from the
same order; both must be readable, or DPO learns the format only. At most two pairs an item: one of each order where
both are mixed, else two of the mixed one. What is right or wrong every time teaches nothing by contrast and is dropped.
At the end chosen verdicts A and B are made equally many (the surplus is dropped and counted), which balances the better
response's position with them.

Items that are wrong every time in both orders are listed as such for an audit: their label may be what is wrong.

Row: id, order, verdict, prompt, chosen, rejected, samples (indices), right (of how many read), judge, length_gap,
source.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest

from data_pipelines.judge.data.folder import Built, Dropped, Row
from data_pipelines.judge.data.items import Item, Order, asking, prompts_of, reply, right, unanswered
from rmkit.judge import Judge
from rmkit.judge.judged import (
    Judged,
    Vote,
)
from rubrics.training_sets import balanced

PAIRS_PER_ITEM = 2
SURPLUS = "surplus of one verdict"


def contrasted(
    judge: Judge, items: Sequence[Item], *, skipped: Mapping[str, int], samples: int = 8, temperature: float = 1.0
) -> Built:
    """Right against wrong self-samples of `judge` on the items. Raises EndpointError where no call can be answered."""
    requests = sampling(judge, samples=samples, temperature=temperature)
    rows: list[Row] = []
    dropped: list[Dropped] = []
    for item, judged in zip(items, requests.judged(item.candidates for item in items), strict=True):
        result = list(_pairs(requests, item, judged))[:PAIRS_PER_ITEM]
        rows += result
        if not result:
            dropped.append({"id": item.id, "reason": _why(item, judged)})
    balanced_rows, surplus = without_surplus(rows)
    return Built(balanced_rows, [*dropped, *surplus], skipped)


def sampling(judge: Judge, *, samples: int, temperature: float) -> Judge:
    """The judge as it is asked here: that many samples in each order."""
    return asking(judge, votes=samples, temperature=temperature, orders="both")


def without_surplus(rows: Sequence[Row]) -> tuple[list[Row], list[Dropped]]:
    """As many rows of each verdict, and what was too many."""
    balanced_rows, surplus = balanced(rows)
    return balanced_rows, [{"id": row["id"], "reason": SURPLUS, "verdict": row["verdict"]} for row in surplus]


def _pairs(judge: Judge, item: Item, judged: Judged) -> Iterator[Row]:
    """Alternating between the orders, so that two pairs show the better response in both places where they can."""
    prompts = prompts_of(judge, item)
    per_order = [_of_order(judge, item, shown, votes, prompts[shown]) for shown, votes in judged.by_order().items()]
    for together in zip_longest(*per_order):
        yield from (row for row in together if row)


def _of_order(
    judge: Judge, item: Item, shown: Order, votes: Sequence[Vote], prompt: list[dict[str, str]]
) -> Iterator[Row]:
    answers = [right(item, vote) for vote in votes]
    good, bad = ([i for i, result in enumerate(answers) if result is target] for target in (True, False))
    read = len(good) + len(bad)
    seen: set[tuple[str, str]] = set()
    for i, j in zip(good, bad, strict=False):
        texts = votes[i].sample.text, votes[j].sample.text
        if texts in seen:
            continue
        seen.add(texts)
        yield {
            "id": item.id,
            "order": list(shown),
            "verdict": item.verdict(shown),
            "prompt": prompt,
            "chosen": reply(texts[0]),
            "rejected": reply(texts[1]),
            "samples": [i, j],
            "right": [len(good), read],
            "judge": judge.info.fingerprint,
            "length_gap": item.length_gap,
            "source": item.source,
        }


def _why(item: Item, judged: Judged) -> str:
    if why := unanswered(judged):
        return why
    settings = [{right(item, vote) for vote in votes} - {None} for votes in judged.by_order().values()]
    match settings:
        case [one, other] if not one or not other:
            return "no readable sample in one order"
        case [one, other] if one == other == {True}:
            return "right every time"
        case [one, other] if one == other == {False}:
            return "wrong every time"
    return "the same place every time"
