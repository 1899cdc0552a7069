"""How far each annotator can be trusted, by agreement with the others on the same pairs.

Each vote is held against the majority of the *other* votes on its pair (ties of that majority say nothing). With a
agreements in v comparable votes, reliability = (a + 1) / (v + 2), the posterior mean under a uniform prior. A vote's
weight is max(0, 2 reliability - 1): a coin weighs nothing.

Someone with a single comparable vote cannot be told from chance: that is refused unless `few="average"` gives such
people the mean reliability of the others.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rmkit.errors import DataError

MIN_VOTES = 2
Few = Literal["refuse", "average"]


@dataclass(frozen=True, slots=True)
class Reliability:
    """`value` in (0, 1) per annotator, from `comparable` votes; `few` are those who were given the average."""

    value: Mapping[str, float]
    comparable: Mapping[str, int]
    few: tuple[str, ...]

    def weight(self, annotator: str) -> float:
        """max(0, 2 reliability - 1)."""
        return max(0.0, 2 * self.value[annotator] - 1)


def annotator_reliability(votes: Sequence[tuple[str, str, object]], *, few: Few = "refuse") -> Reliability:
    """From (pair id, annotator, what they chose). Raises DataError where ids are missing, nobody shares a pair, or,
    with `few="refuse"`, someone has fewer than two comparable votes."""
    by_pair: dict[str, list[tuple[str, object]]] = defaultdict(list)
    for pair, annotator, choice in votes:
        if not pair or not annotator:
            raise DataError(f"a vote needs a pair and an annotator, got {pair!r} and {annotator!r}")
        by_pair[pair].append((annotator, choice))
    agreed: Counter[str] = Counter()
    comparable: Counter[str] = Counter()
    for inputs in by_pair.values():
        for at, (annotator, choice) in enumerate(inputs):
            others = _majority([other for index, (_, other) in enumerate(inputs) if index != at])
            if others is not None:
                comparable[annotator] += 1
                agreed[annotator] += choice == others
    everyone = sorted({annotator for _, annotator, _ in votes})
    enough = [name for name in everyone if comparable[name] >= MIN_VOTES]
    if not enough:
        raise DataError("no annotator has two votes on pairs that others judged too; reliability cannot be estimated")
    rare = tuple(name for name in everyone if comparable[name] < MIN_VOTES)
    if rare and few == "refuse":
        raise DataError(
            f"{len(rare)} annotators have fewer than {MIN_VOTES} votes that can be compared (first: {rare[0]}); "
            'drop their votes or give them the average with few="average"'
        )
    value = {name: (agreed[name] + 1) / (comparable[name] + 2) for name in enough}
    mean = sum(value.values()) / len(value)
    return Reliability(value | dict.fromkeys(rare, mean), dict(comparable), rare)


def _majority(choices: Sequence[object]) -> object | None:
    """The most frequent choice, None where there is none or several."""
    top = Counter(choices).most_common(2)
    if not top or (len(top) == 2 and top[0][1] == top[1][1]):
        return None
    return top[0][0]
