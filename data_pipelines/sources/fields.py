"""What annotation tools export: fields whose names say which is the prompt and which are responses, and answers to
questions whose names say what was asked. Argilla and Label Studio share these rules.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from data_pipelines.sources.unit_builder import Judgment, UnusableRowError, finite, judgment, ranks_of
from data_pipelines.sources.verdicts import word

PROMPTS = (
    "prompt",
    "instruction",
    "question",
    "query",
    "input",
    "conversation",
    "chat",
    "messages",
    "history",
    "context",
)
_RESPONSE = re.compile(
    r"(response|completion|answer|generation|output|reply|candidate|summary|text|chosen|rejected|model)"
)
_NO_RESPONSE = re.compile(  # what a field tells about a response: it is none
    r"model|generat(or|ionsmodel)|author|source|score|rating|ids?$|time|date|length|tokens|language|lang$|hash|url|name$"
)
_EDIT = re.compile(r"edit|correct(ion|ed)|rewrit|rewrote|improved|fixed")
_REASON = re.compile(r"comment|reason|rationale|explanation|explain|feedback|note|why|critique")
_PREFERENCE = re.compile(r"prefer|best|better|choice|choose|chosen|winner|rank|select|compar|pairwise|pw")


@dataclass
class Answers:
    """What one person said about an item, collected question by question."""

    names: Sequence[str]  # the response fields, in the unit's order
    ranks: list[int | None] | None = None
    scores: list[tuple[int, str, Any]] = field(default_factory=list)
    rationale: str | None = None
    edit: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def choice(self, question: str, value: Any) -> None:
        """A named option: a response or a tie makes ranks; anything else is kept in extra."""
        ranks = chosen_ranks(value, self.names, loose=bool(_PREFERENCE.search(question.lower())))
        if ranks is None or self.ranks is not None:
            self.extra[question] = value
        else:
            self.ranks = ranks

    def ranking(self, question: str, places: Mapping[str, Any]) -> bool:
        """Response name -> rank, lowest best, equal ranks tie. False where the names are not those of responses."""
        at = {plain(name): index for index, name in enumerate(self.names)}
        if not places or not all(plain(name) in at for name in places):
            return False
        values: list[float | None] = [None] * len(self.names)
        for name, rank in places.items():
            values[at[plain(name)]] = None if rank is None else finite(rank, "rank")
        if self.ranks is None:
            self.ranks = ranks_of(values, best="low")
        else:
            self.extra[question] = dict(places)
        return True

    def rating(self, question: str, value: Any, target: str | None = None) -> None:
        """A number about the response that `target` or the question names, or about the only one."""
        at = self._about(target or question)
        if at is None:
            self.extra[question] = value
        else:
            self.scores.append((at, question, value))

    def _about(self, text: str) -> int | None:
        if len(self.names) == 1:
            return 0
        result = [index for index, name in enumerate(self.names) if plain(name) in plain(text)]
        return result[0] if len(result) == 1 else None

    def text(self, question: str, value: str) -> None:
        """Free text: a correction or a reason by the question's name, otherwise kept under its name."""
        if _EDIT.search(question.lower()) and self.edit is None and value.strip():
            self.edit = value
        elif self.rationale is None and (_REASON.search(question.lower()) or len(value) > 80):
            self.rationale = value
        else:
            self.extra[question] = value

    def is_label(self, question: str, value: str) -> bool:
        """Whether a text names a response or a tie rather than being prose."""
        return chosen_ranks(value, self.names, loose=bool(_PREFERENCE.search(question.lower()))) is not None

    def judgment(self, rater: str, kind: str) -> Judgment | None:
        """The judgment, None where nothing at all was said."""
        if not (self.ranks or self.scores or self.rationale or self.edit or self.extra):
            return None
        return judgment(
            rater,
            kind,
            ranks=self.ranks,
            scores=self.scores,
            rationale=self.rationale,
            edit=self.edit,
            extra=self.extra,
        )


def split_fields(fields: Mapping[str, Any], named: Sequence[str] = ()) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """(prompt, responses by name, the other fields). `named` are the responses where the export says which they are.

    Raises UnusableRowError where names do not tell them apart.
    """
    own = [name for name in fields if name in named]
    prompt = next(
        (
            name
            for target in PROMPTS
            for name in fields
            if plain(name).startswith(target) and fields[name] and name not in own
        ),
        None,
    )
    responses = (
        {name: fields[name] for name in own}
        if len(own) > 1
        else {
            name: value
            for name, value in fields.items()
            if name != prompt
            and isinstance(value, str | list)
            and value
            and _RESPONSE.match(plain(name))
            and not _NO_RESPONSE.search(plain(name))
        }
    )
    if prompt is None:
        raise UnusableRowError("no field is named like a prompt")
    if not responses:
        raise UnusableRowError("no field is named like a response")
    others = {name: value for name, value in fields.items() if name != prompt and name not in responses}
    return fields[prompt], responses, others


def authors(names: Sequence[str], others: Mapping[str, Any]) -> list[Any]:
    """Who wrote each response: a field like model_a beside response_a, or response_a_model; None where none says."""
    models = {plain(name): value for name, value in others.items() if isinstance(value, str) and value}
    result = []
    for name in names:
        mark = re.sub(
            r"^(response|completion|answer|generation|output|reply|candidate|summary|text)s?", "", plain(name)
        )
        spellings = (f"model{mark}", f"generator{mark}", f"{plain(name)}model", f"{plain(name)}generator")
        result.append(next((models[one] for one in spellings if one in models and (mark or one != "model")), None))
    return result


def chosen_ranks(value: Any, names: Sequence[str], *, loose: bool) -> list[int | None] | None:
    """Ranks that put the named response first and tie the others; all tied for a tie; None for any other value.

    `loose` also takes A, B, ... and 1, 2, ... and the words for a tie: only where the question asks for a preference.
    """
    if isinstance(value, bool) or not isinstance(value, str | int) or len(names) < 2:
        return None
    options = {plain(name): index for index, name in enumerate(names)}
    at = options.get(plain(value))
    if at is None and loose:
        parsed = word(str(value))
        if parsed is not None and parsed.side == "tie":
            return [0] * len(names)
        if parsed is not None and (parsed.side == "a" or len(names) == 2):
            at = {"a": 0, "b": 1}[parsed.side]
        else:
            letter = plain(value).removeprefix("response")
            at = ord(letter) - ord("a") if len(letter) == 1 and letter.isalpha() else None
            at = int(letter) - 1 if letter.isdigit() and len(letter) < 3 else at
    if at is None or not 0 <= at < len(names):
        return None
    return [0 if index == at else 1 for index in range(len(names))]


def plain(name: Any) -> str:
    """A name without case, spaces and signs: "Response-1" and "response_1" are one."""
    return re.sub(r"[^a-z0-9]", "", str(name).lower())
