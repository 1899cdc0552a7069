"""What annotation tools export: fields whose names say which is the prompt and which are responses, and answers to
questions whose names say what was asked. Argilla and Label Studio share these rules.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from data_pipelines.sources.unit_builder import Judgment, UnusableRowError, finite, judgment, ranks_of

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
_EDIT = re.compile(r"edit|correct(ion|ed)|rewrit|rewrote|improved|fixed")
_REASON = re.compile(r"comment|reason|rationale|explanation|explain|feedback|note|why|critique")
_PREFERENCE = re.compile(r"prefer|best|better|choice|choose|chosen|winner|rank|select|compar|pairwise|pw")
_TIES = ("tie", "equal", "same", "both", "neither", "nopreference", "equallygood", "equallybad", "bothgood", "bothbad")


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


def split_fields(fields: Mapping[str, Any]) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """(prompt, responses by name, the other fields). Raises UnusableRowError where names do not tell them apart."""
    prompt = next(
        (name for target in PROMPTS for name in fields if plain(name).startswith(target) and fields[name]), None
    )
    responses = {
        name: value
        for name, value in fields.items()
        if name != prompt and isinstance(value, str | list) and value and _RESPONSE.match(plain(name))
    }
    if prompt is None:
        raise UnusableRowError("no field is named like a prompt")
    if not responses:
        raise UnusableRowError("no field is named like a response")
    others = {name: value for name, value in fields.items() if name != prompt and name not in responses}
    return fields[prompt], responses, others


def chosen_ranks(value: Any, names: Sequence[str], *, loose: bool) -> list[int | None] | None:
    """Ranks that put the named response first and tie the others; all tied for a tie; None for any other value.

    `loose` also takes A, B, ... and 1, 2, ... and the words for a tie: only where the question asks for a preference.
    """
    answers = plain(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    options = {plain(name): index for index, name in enumerate(names)}
    if loose and len(names) > 1:
        if answers in _TIES:
            return [0] * len(names)
        for index in range(len(names)):
            for option in (
                chr(ord("a") + index),
                str(index + 1),
                f"response{chr(ord('a') + index)}",
                f"response{index + 1}",
            ):
                options.setdefault(option, index)
    if not answers or answers not in options or len(names) < 2:
        return None
    return [0 if index == options[answers] else 1 for index in range(len(names))]


def plain(name: Any) -> str:
    """A name without case, spaces and signs: "Response-1" and "response_1" are one."""
    return re.sub(r"[^a-z0-9]", "", str(name).lower())
