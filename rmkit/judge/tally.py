"""What every report of a judge states: parse rate, label mass, swap gap, vote split, position and length bias, cost.

Sums only, so that a hundred thousand calls take no more memory than one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rmkit.cli.display import percent
from rmkit.types import Comparison

if TYPE_CHECKING:
    from rmkit.judge.judged import (
        Judged,
        Vote,
    )


@dataclass(slots=True)
class Mean:
    """A mean without its values; None while there are none."""

    total: float = 0.0
    n: int = 0

    def add(self, value: float) -> None:
        self.total += value
        self.n += 1

    @property
    def value(self) -> float | None:
        return self.total / self.n if self.n else None


@dataclass(slots=True)
class JudgeTally:
    """Counts over all items judged so far."""

    items: int = 0
    calls: int = 0
    unanswered: int = 0  # refused, given up, out of budget
    read: int = 0
    unread: Counter[str] = field(default_factory=Counter)  # by kind of reason
    first: dict[str, str] = field(default_factory=dict)  # kind -> the whole reason of the first one
    mass: Mean = field(default_factory=Mean)
    swap_gap: Mean = field(default_factory=Mean)  # over pairs read in both orders
    flips: Mean = field(default_factory=Mean)  # share of those whose orders name different winners
    first_slot: Mean = field(default_factory=Mean)  # mean probability of the response shown first
    longer: Mean = field(default_factory=Mean)  # share of decided pairs of unlike length won by the longer one
    majority: Mean = field(default_factory=Mean)  # share of the votes on one question that agree with most
    splits: Counter[str] = field(default_factory=Counter)  # votes per answer to one question, most first: "4 : 1"

    def add(self, judged: Judged) -> None:
        """Count one item."""
        self.items += 1
        for vote in judged.votes:
            self.calls += 1
            if vote.sample.error:
                self.unanswered += 1
            if vote.reading.unread:
                kind = vote.reading.unread.split(":")[0]
                self.unread[kind] += 1
                self.first.setdefault(kind, vote.reading.unread)
            else:
                self.read += 1
            if vote.reading.mass is not None:
                self.mass.add(vote.reading.mass)
        for votes in judged.by_order().values():
            self._add_split([vote for vote in votes if not vote.reading.unread])
        if len(judged.candidates.completions) == 2 and all(len(vote.shown) == 2 for vote in judged.votes):
            self._add_pair(judged, judged.comparison())

    def _add_pair(self, judged: Judged, comparison: Comparison) -> None:
        for votes in judged.by_order().values():
            if any(not vote.reading.unread for vote in votes):
                self.first_slot.add(_mean_first(votes))
        if comparison.unscored:
            return
        if comparison.swap_gap is not None:
            self.swap_gap.add(comparison.swap_gap)
            one, other = (_mean_first(votes) for votes in judged.by_order().values())
            self.flips.add(float((one - 0.5) * (0.5 - other) < 0))
        lengths = [len(completion.text) for completion in judged.candidates.completions]
        if comparison.p_first != 0.5 and lengths[0] != lengths[1]:
            self.longer.add(float((comparison.p_first > 0.5) == (lengths[0] > lengths[1])))

    def _add_split(self, votes: Sequence[Vote]) -> None:
        if len(votes) > 1:
            answers = Counter(map(_answer, votes)).most_common()
            self.splits[" : ".join(str(count) for _, count in answers)] += 1
            self.majority.add(answers[0][1] / len(votes))

    def report(self) -> dict[str, Any]:
        """JSON-ready; shares are None where nothing was counted. The parse rate is that of the replies that came.

        Under `unread` each kind of reason stands with the words of its first case: what the server said, say.
        """
        replies = self.calls - self.unanswered
        return {
            "items": self.items,
            "calls": self.calls,
            "replies": replies,
            "parse_rate": self.read / replies if replies else None,
            "unread": {self.first[kind]: count for kind, count in self.unread.most_common()},
            "label_mass": self.mass.value,
            "swap_gap": self.swap_gap.value,
            "flip_rate": self.flips.value,
            "pairs_in_both_orders": self.swap_gap.n,
            "first_slot": self.first_slot.value,
            "longer_wins": self.longer.value,
            "pairs_of_unlike_length": self.longer.n,
            "vote_majority": self.majority.value,
            "vote_splits": dict(sorted(self.splits.items())),
        }


def _mean_first(votes: Sequence[Vote]) -> float:
    """Mean probability of the response shown first, over the votes that were read."""
    read = [vote.reading.values[0] for vote in votes if not vote.reading.unread]
    return sum(read) / len(read)


def _answer(vote: Vote) -> tuple[int, ...]:
    """What a vote says, without how sure it is: a level (yes is 1), or the rank of each response shown."""
    values = vote.reading.values
    return (round(values[0]),) if len(values) == 1 else tuple(sum(o > value for o in values) for value in values)


def report_of(model: object) -> dict[str, Any] | None:
    """What a judge has to report on all it judged since it was opened, None for other kinds of model."""
    report = getattr(model, "report", None)
    return dict(report()) if report else None


def report_lines(report: Mapping[str, Any]) -> Iterator[str]:
    """A judge's report in a few lines of text: how it could be read, where it leans, what it cost."""
    unread = "".join(f"; {count} unread: {reason}" for reason, count in report["unread"].items())
    yield f"{report['calls']} calls on {report['items']} items, parse rate {percent(report['parse_rate'])}{unread}"
    if report["pairs_in_both_orders"]:
        yield (
            f"swap gap {report['swap_gap']:.3f}, verdict turned with the order in {percent(report['flip_rate'])} of "
            f"{report['pairs_in_both_orders']} pairs"
        )
    if report["first_slot"] is not None:
        longer = f"{percent(report['longer_wins'])} of {report['pairs_of_unlike_length']} pairs"
        yield f"first slot {report['first_slot']:.3f}, the longer response wins {longer}"
    if report["vote_splits"]:
        splits = ", ".join(f"{split} ({count})" for split, count in report["vote_splits"].items())
        yield f"votes agree with their majority in {percent(report['vote_majority'])}: {splits}"
    for juror in report.get("jury", ()):
        share = f"as the jury in {percent(juror['with_jury'])} of {juror['decided']} decided pairs"
        agreement = share if juror["decided"] else f"{juror['answered']} answers"
        yield f"{juror['judge']} (weight {juror['weight']:g}): {juror['unscored']} unscored, {agreement}"
    tokens = report["prompt_tokens"] + report["completion_tokens"]
    yield (
        f"{report['paid_calls']} calls paid now: {tokens:,} tokens, ${report['usd']:.4f}; {report['found_in_ledger']} "
        f"found in the ledger: {report['tokens_paid_before']:,} tokens, ${report['usd_paid_before']:.4f}"
    )


def judging_lines(payload: Mapping[str, Any]) -> list[str]:
    """The report that a command's result holds under "judging" as text; nothing where it holds none."""
    result = payload.get("judging")
    return [f"  judging: {line}" for line in report_lines(result)] if result else []
