"""Confucius3's recovery of recent samples: mixed groups beyond a batch open the next one, and only the next.

Groups that are all right or all wrong are of no use to a group-relative advantage and are dropped. What was left over
from an earlier batch comes first, without importance weights; what even so does not fit is dropped rather than kept,
since it would be two policies old.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

Item = TypeVar("Item")


class Batch(NamedTuple, Generic[Item]):
    """What is trained on now, and what opens the next batch."""

    now: list[Item]
    left: list[Item]


def next_batch(
    left: Sequence[Item], fresh: Sequence[Item], rewards: Callable[[Item], Sequence[float | None]], n: int
) -> Batch[Item]:
    """At most n mixed groups: those left over, then fresh ones; fresh mixed groups beyond them are left over."""
    mixed = [one for one in fresh if is_mixed(rewards(one))]
    room = max(n - len(left), 0)
    return Batch([*left[:n], *mixed[:room]], mixed[room:])


def is_mixed(rewards: Sequence[float | None]) -> bool:
    """Whether the scored rewards differ."""
    return len({reward for reward in rewards if reward is not None}) > 1
