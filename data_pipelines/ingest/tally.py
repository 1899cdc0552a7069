"""What a load says: votes by value, raters and their kinds, units that nobody judged."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from data_pipelines.sources.unit_builder import Judgment, Unit

MAX_RATERS = 10_000


@dataclass
class Tally:
    """Counts over the units of a stream. `votes` are judgments by what they say of a pair in the order of the file's
    columns (a, b, tie), and for other units whether they rank, score, label steps, correct or only comment.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    votes: Counter[str] = field(default_factory=Counter)
    raters: dict[str, str] = field(default_factory=dict)
    judgments: int = 0

    def plain(self, n: int, rater: str, kind: str) -> None:
        """`n` pairs whose first response won."""
        if n:
            self.kinds["pair"] += n
            self.votes["a"] += n
            self.judgments += n
            self.raters.setdefault(rater, kind)

    def rater_kinds(self) -> dict[str, int]:
        """How many raters there are of each kind."""
        return dict(Counter(self.raters.values()))

    def add(self, unit: Unit) -> bool:
        """Count a unit; whether anybody judged it (a rubric asks for no judgment)."""
        self.kinds[unit["kind"]] += 1
        opinions = 0
        for judgment in unit["judgments"]:
            self.judgments += 1
            if len(self.raters) < MAX_RATERS:
                self.raters.setdefault(judgment["rater"], judgment["rater_kind"])
            opinion = statement(judgment)
            self.votes[opinion] += 1
            opinions += opinion != "comment"
        return bool(opinions) or unit["kind"] == "rubric"


def statement(judgment: Judgment) -> str:
    """What kind of opinion a judgment is."""
    ranks = judgment["ranks"]
    if ranks is not None and len(ranks) == 2 and None not in ranks:
        return "a" if ranks[0] < ranks[1] else "b" if ranks[0] > ranks[1] else "tie"
    for name, opinion in (("ranks", "ranking"), ("step_labels", "steps"), ("scores", "scores"), ("edit", "edit")):
        if judgment[name] is not None:
            return opinion
    return "comment"
