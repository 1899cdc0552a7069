"""SFT rows for a judge: a teacher's own words, admitted only where it is right in both orders (RISE, arXiv 2502.11689).

A teacher that guesses is right by luck half of the time in one order, a quarter of the time in both, so asking twice
takes out half of the lucky critiques that one order lets through; one that always names the same slot is never admitted
(algorithms, section 6). Both orders of an admitted pair become rows: verdicts A and B are equally many by construction.

Row: id, order, verdict, prompt, completion (TRL's conversational form), admitted (why), teacher, fingerprint,
length_gap, source. Dropped: id, reason, what the teacher said in each order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from data_pipelines.judge.data.folder import Built, Dropped, Row
from data_pipelines.judge.data.items import Item, asking, prompts_of, reply, right, unanswered
from rmkit.judge import Judge
from rmkit.judge.judged import (
    Judged,
    Vote,
)

WRONG, ONE_ORDER, UNREAD = "wrong in both orders", "right in one order only", "no readable verdict"
TEACHER_FAILED = (WRONG, ONE_ORDER, UNREAD, "wrong")  # reasons for which an item goes on to DPO; no answer is none


def admitted(
    teacher: Judge, items: Sequence[Item], *, skipped: Mapping[str, int], orders: Literal["both", "given"] = "both"
) -> Built:
    """The teacher's replies to the items it judged rightly. `orders` given admits on one order (to compare).

    Raises EndpointError where no call can be answered.
    """
    requests = asking(teacher, votes=1, orders=orders)
    rows: list[Row] = []
    dropped: list[Dropped] = []
    for item, judged in zip(items, requests.judged(item.candidates for item in items), strict=True):
        reason = refusal(item, judged)
        if reason is None:
            rows += _rows(requests, item, judged)
        else:
            dropped.append({"id": item.id, "reason": reason, "said": [_vote_row(item, vote) for vote in judged.votes]})
    return Built(rows, dropped, skipped)


def refusal(item: Item, judged: Judged) -> str | None:
    """Why the item is not admitted, None where every order came out right."""
    if why := unanswered(judged):
        return why
    result = [right(item, vote) for vote in judged.votes]
    if all(result):
        return None
    if None in result:
        return UNREAD
    if len(result) == 1:
        return "wrong"
    return ONE_ORDER if any(result) else WRONG


def _vote_row(item: Item, vote: Vote) -> dict[str, object]:
    return {"order": list(vote.shown), "right": right(item, vote), "unread": vote.reading.unread}


def _rows(teacher: Judge, item: Item, judged: Judged) -> Iterable[Row]:
    prompts = prompts_of(teacher, item)
    for vote in judged.votes:
        yield {
            "id": item.id,
            "order": list(vote.shown),
            "verdict": item.verdict(vote.shown),
            "prompt": prompts[vote.shown],
            "completion": reply(vote.sample.text),
            "admitted": "right in both orders" if len(judged.votes) == 2 else "right in one order, the only one asked",
            "teacher": teacher.engine.generator.name,
            "fingerprint": teacher.info.fingerprint,
            "length_gap": item.length_gap,
            "source": item.source,
        }
