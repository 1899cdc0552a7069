"""What one row says under the roles of its form: verdicts, numbers, who judged, the judgments that these make."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from data_pipelines.sources import paths
from data_pipelines.sources.form import Form
from data_pipelines.sources.inference.labels import vote_keys
from data_pipelines.sources.inference.raters import is_person
from data_pipelines.sources.talks import is_turn
from data_pipelines.sources.unit_builder import Judgment, Row, UnusableRowError, finite, judgment
from data_pipelines.sources.verdicts import RANKS, Verdict, as_text, ranking, verdict
from warehouse.write.units import UNSTATED

UNKNOWN_VERDICT = "preference is not a, b or tie"
_KINDS = {
    **dict.fromkeys(
        ("human", "person", "people", "annotation", "app", "user", "crowd", "expert", "annotator"), "human"
    ),
    **dict.fromkeys(("llm", "model", "eval", "ai", "auto_eval", "judge", "gpt", "llm-judge"), "llm"),
    **dict.fromkeys(("code", "verifier", "verified", "test", "rule"), "verifier"),
    **dict.fromkeys(("rm", "reward model", "reward_model"), "rm"),
    **dict.fromkeys(("constructed", "synthetic"), "constructed"),
    "unknown": "unknown",
}
_TRUE = ("1", "true", "yes", "desirable", "good", "thumbs_up", "up", "like", "liked", "👍")
_FALSE = ("0", "false", "no", "undesirable", "bad", "thumbs_down", "down", "dislike", "disliked", "-1", "👎")
_WON = {"a": (1.0, 0.0), "b": (0.0, 1.0), "tie": (0.5, 0.5)}


class UnknownVerdictError(UnusableRowError):
    """A label that nobody said the meaning of."""

    def __init__(self, value: Any):
        self.value = str(value).strip()[:40]
        super().__init__(f"{UNKNOWN_VERDICT}: {self.value!r}")


class RoleValues:
    """A row under a form. Every method raises UnusableRowError for a value that its role cannot have."""

    def __init__(self, form: Form, places: Mapping[str, paths.Path], row: Row):
        self.form, self.row, self._places = form, row, places

    def get(self, role: str, *, must: bool = False) -> Any:
        """The value of a role; None where the row has none, NaN counts as none. One that `must` be there raises."""
        path = self._places.get(role)
        value = paths.MISSING if path is None else paths.value_at(self.row, path)
        if value is paths.MISSING or (must and value is None):
            if path is not None and must:
                raise UnusableRowError(f"missing field {path.text.removesuffix('?')}")
            return None
        return None if isinstance(value, float) and value != value else value

    def number(self, value: Any, what: str) -> float | None:
        """A number, or what the form's values say that a word stands for."""
        values = self.form.values
        if isinstance(value, str) and (key := value.strip().lower()) in values.numbers:
            return values.numbers[key]
        if isinstance(value, str) and values.sides.get(value.strip().lower()) == "none":
            return None
        return float(value) if isinstance(value, bool) else finite(value, what)

    def numbers(self, role: str, size: int) -> list[float | None] | None:
        """One number a reply, None where the row has none."""
        values = self.get(role)
        if values is None:
            return None
        if role == "ranks" and isinstance(values, str) and (groups := ranking(values)):
            return _places(groups, size)
        if not isinstance(values, list) or len(values) != size:
            raise UnusableRowError(f"{role} and responses have different lengths")
        return [None if value in (None, "") else self.number(value, role) for value in values]

    def pair_scores(self) -> tuple[list[float | None], float | None]:
        """(the numbers of two replies, the first less the second)."""
        values = [self.get("score_a"), self.get("score_b")]
        if isinstance(both := self.get("scores"), list):
            if len(both) != 2:
                raise UnusableRowError("scores and responses have different lengths")
            values = both
        first, second = (None if value in (None, "") else self.number(value, "score") for value in values)
        return [first, second], None if first is None or second is None else first - second

    def single_scores(self) -> Iterator[tuple[str, float]]:
        """(aspect, number) of a single reply."""
        for role in self.form.roles:
            value = self.get(role) if role.startswith("score.") else None
            if value not in (None, "") and (number := self.number(value, role[6:])) is not None:
                yield role[6:], number
        score = self.get("score")
        if score not in (None, "") and (number := self.number(score, "score")) is not None:
            yield str(self.get("aspect") or self.form.aspect), number
        label = self.get("label")
        if isinstance(label, list):  # named classes: each a score 1 of that name
            yield from ((str(name), 1.0) for name in label)
        elif label not in (None, ""):
            yield "desirable", self._truth(label)

    def _truth(self, value: Any) -> float:
        text = as_text(value).lower()
        if text in self.form.values.numbers:
            return self.form.values.numbers[text]
        if text not in _TRUE and text not in _FALSE:
            raise UnusableRowError("label is not true or false")
        return float(text in _TRUE)

    def step_label(self, value: Any) -> float:
        number = 1.0 if value in ("+", True) else 0.0 if value in ("-", False) else self.number(value, "step label")
        if self.form.label_scale == "signed" and number in (-1, 0, 1):
            number = (number + 1) / 2
        if number is None or not 0 <= number <= 1:
            raise UnusableRowError("a step label is not between 0 and 1")
        return number

    def verdict(self, value: Any, models: Sequence[Any]) -> Verdict:
        """What a label says of the two replies; `models` wrote them."""
        if isinstance(value, Mapping | list):
            raise UnusableRowError("preference is an object or a list")
        columns = [self.form.roles.get("response_a"), self.form.roles.get("response_b")]
        names = [[name for name in (column, model) if name] for column, model in zip(columns, models, strict=False)]
        if len(names) == 2 and names[0][-1:] == names[1][-1:]:
            names = [one[:1] for one in names]  # both sides by one model: its name tells nothing
        result = verdict(value, self.form.values, names)
        if result is None:
            raise UnknownVerdictError(value)
        return result

    def criteria_scores(self, models: Sequence[Any] | None) -> Iterator[tuple[int, str, float]]:
        """(reply, column, number) of the columns of --wide where the row names its rater: they are criteria then. Of
        two replies (`models` wrote them) the better one has 1, in a tie both 0.5; of one reply it is its number.
        """
        for column in self.form.wide:
            value = self.row.get(column)
            if value in (None, ""):
                continue
            if models is None:
                if (number := self.number(value, column)) is not None:
                    yield 0, column, number
            elif (side := self.verdict(value, models).side) != "none":
                yield from ((at, column, share) for at, share in enumerate(_WON[side]))

    def wide_votes(self, models: Sequence[Any]) -> Iterator[Judgment]:
        """One judgment a column of --wide, whose name is the rater; an empty cell is no vote."""
        for column in self.form.wide:
            choice = self.verdict(self.row.get(column), models)
            if choice.side != "none":
                yield judgment(column, self.form.kind or "unknown", ranks=RANKS[choice.side], strength=choice.strength)

    def wide_scores(self) -> Iterator[Judgment]:
        """The same of a single reply: each column is one rater's number."""
        for column in self.form.wide:
            value = self.row.get(column)
            if value not in (None, "") and (number := self.number(value, column)) is not None:
                yield judgment(column, self.form.kind or "unknown", scores=[(0, self.form.aspect, number)])

    def listed_votes(self, models: Sequence[Any]) -> Iterator[Judgment]:
        """One judgment an object of a list of votes."""
        votes = self.get("votes")
        if votes in (None, []):
            return
        keys = vote_keys(votes) if isinstance(votes, list) else None
        if keys is None:
            raise UnusableRowError("the votes are no list of objects with a verdict each")
        for vote in votes:
            choice = self.verdict(vote[keys[0]], models)
            if choice.side != "none":
                rater = vote.get(keys[1]) if keys[1] else None
                kind = self.form.kind or "unknown"
                extra = {name: value for name, value in vote.items() if name not in keys and value is not None}
                yield judgment(rater or UNSTATED, kind, ranks=RANKS[choice.side], strength=choice.strength, extra=extra)

    def judgments(
        self,
        *,
        ranks: list[int | None] | None = None,
        strength: float | None = None,
        scores: Sequence[tuple[int, str, float]] = (),
        step_labels: list[float | None] | None = None,
    ) -> list[Judgment]:
        """The judgment of the row, none where it holds no opinion at all; who gave one stays in meta then."""
        rationale, edit = _as_note(self.get("rationale")), self.get("edit")
        if rationale and self.form.rationale_after:
            rationale = rationale.partition(self.form.rationale_after)[2] or rationale
        if isinstance(edit, Mapping) and not is_turn(edit):
            edit = next((value for value in edit.values() if isinstance(value, str) and value.strip()), None)
        if ranks is None and not scores and step_labels is None and not rationale and edit in (None, ""):
            return []
        extra = {name: value for name in ("language",) if (value := self.get(name)) not in (None, "")}
        rater, kind = self._rater(extra)
        vote = judgment(
            rater,
            kind,
            ranks=ranks,
            strength=strength,
            scores=scores,
            step_labels=step_labels,
            edit=edit or None,
            rationale=rationale,
            extra=extra,
            time=self.get("time"),
            confidence=self.get("confidence"),
            duration_s=self.get("duration"),
        )
        order = self.get("shown_order")
        if isinstance(order, list) and all(isinstance(at, int) for at in order):
            vote["shown_order"] = order
        return [vote]

    def _rater(self, extra: dict[str, Any]) -> tuple[str, str]:
        value = self.get("rater")
        if isinstance(value, Mapping):
            names = [value[key] for key in ("id", "email", "username", "name") if value.get(key) is not None]
            if not names:
                raise UnusableRowError("rater is an object without id, email or name")
            extra["rater"] = dict(value)
            value = names[0]
        elif isinstance(value, list):
            raise UnusableRowError("rater is a list")
        name = self.form.rater or UNSTATED if value in (None, "") else as_text(value)
        stated = self.get("rater_kind")
        if stated == "API":  # Langfuse: sent by the program in which a person clicked
            return name, "human"
        if stated not in (None, ""):
            return name, _KINDS.get(str(stated).strip().lower(), "unknown")
        if self.form.named_people and not is_person(name):
            return name, "unknown"
        return name, self.form.kind or "unknown"


def _places(groups: Sequence[Sequence[str]], size: int) -> list[float | None]:
    """Ranks from groups of replies, best first, named by letters, or by numbers from 0 or from 1; None for one that is
    left out.
    """
    names = [name for group in groups for name in group]
    if all(name.isdigit() for name in names):
        numbers = sorted(map(int, names))
        if numbers not in (list(range(size)), list(range(1, size + 1))):
            raise UnusableRowError("the ranking does not name each reply once, from 0 or from 1")
        at = {name: int(name) - numbers[0] for name in names}
    else:
        at = {name: ord(name.upper()) - ord("A") for name in names if not name.isdigit()}
    if len(at) < len(names) or not all(0 <= place < size for place in at.values()):
        raise UnusableRowError("the ranking names a reply that is not there")
    ranks: list[float | None] = [None] * size
    for rank, group in enumerate(groups):
        for name in group:
            ranks[at[name]] = rank
    return ranks


def _as_note(value: Any) -> str | None:
    """A reason as text; an object or a list as its JSON, so that nothing of it is lost."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)
