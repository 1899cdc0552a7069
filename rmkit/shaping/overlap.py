"""How far two sets agree, as a column for a chain."""

from __future__ import annotations

from collections.abc import Collection, Hashable


def jaccard(first: Collection[Hashable], second: Collection[Hashable]) -> float:
    """Shared members over all members, in [0, 1]; 0 where both are empty."""
    one, other = set(first), set(second)
    return len(one & other) / len(one | other) if one | other else 0.0
