"""GRPO's reward for judges: 1 where the verdict is right in both orders, else 0 (J1, arXiv 2505.10320).

The k-th reply to (a, b) and the k-th to (b, a) are twins: both get 1 where both name the better response. A reply that
is right in one order only earns nothing, so guessing and favoring a slot do not pay. No reward for format: an
unreadable verdict is simply not right. Rows that have one order only (SPARK's) are rewarded for being right in it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from rmkit.errors import UsageError
from rmkit.generate import Sample
from rmkit.judge.verdict import read_pair, read_yes_no


def is_right(text: str, verdict: str, *, complete: bool = True) -> bool:
    """Whether the reply's verdict line says `verdict` (A, B, yes or no); a reply that was cut off says nothing."""
    sample = Sample(text=text, finish="stop" if complete else "length")
    if verdict in ("yes", "no"):
        reading = read_yes_no(sample, use_logprobs=False)
        return not reading.unread and (reading.values[0] > 0.5) == (verdict == "yes")
    reading = read_pair(sample, ties=False, use_logprobs=False)
    return not reading.unread and (reading.values[0] > 0.5) == (verdict == "A")


def consistency(right: Sequence[bool], ids: Sequence[str], orders: Sequence[Sequence[int]]) -> list[float]:
    """Reward per reply, in [0, 1]. Replies of one item and order are numbered as they come; equal numbers are twins.

    An item shown in one order only is rewarded alone. Raises UsageError where the two orders have not as many replies
    (a batch that was cut between them).
    """
    replies: dict[str, dict[tuple[int, ...], list[int]]] = defaultdict(lambda: defaultdict(list))
    for at, (name, order) in enumerate(zip(ids, orders, strict=True)):
        replies[name][tuple(order)].append(at)
    reward = [0.0] * len(right)
    for name, by_order in replies.items():
        if len({len(result) for result in by_order.values()}) > 1:
            raise UsageError(f"item {name} has unlike numbers of replies in its orders; keep both orders in one batch")
        for twins in zip(*by_order.values(), strict=True):
            together = float(all(right[at] for at in twins))
            for at in twins:
                reward[at] = together
    return reward


class BothOrders:
    """The reward as TRL's GRPOTrainer calls it; `end` are the ids of tokens that end a reply.

    Logs `right_share` (in the order shown) beside the reward, so that a judge that is right but inconsistent is seen.
    """

    __name__ = "both_orders"

    def __init__(self, end: Sequence[int]) -> None:
        self._end = set(end)

    def __call__(
        self, *, completions: Sequence[Any], completion_ids: Sequence[Sequence[int]], **row: Any
    ) -> list[float]:
        """One reward per completion; `row` holds the columns id, order, paired and verdict."""
        right = [
            is_right(_text(completion), verdict, complete=bool(self._end & set(ids)))
            for completion, ids, verdict in zip(completions, completion_ids, row["verdict"], strict=True)
        ]
        for name, order, paired in zip(row["id"], row["order"], row["paired"], strict=True):
            other = list(order)[::-1]
            if paired and not any(n == name and list(o) == other for n, o in zip(row["id"], row["order"], strict=True)):
                raise UsageError(f"item {name} has one order in this batch only; make rows_at_once and processes even")
        if log := row.get("log_metric"):
            log("right_share", sum(right) / len(right))
        return consistency(right, row["id"], row["order"])


def _text(completion: Any) -> str:
    return completion if isinstance(completion, str) else "".join(turn["content"] for turn in completion)
