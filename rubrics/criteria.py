"""One criterion of a rubric: what is asked, what each level means, how much it counts.

A rubric is a list of criteria; its identity is the canonical JSON of that list, so `rubric_json` leaves absent parts
out and writes the rest in one way only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rmkit.errors import DataError
from rmkit.ids import canonical_json

FIELDS = ("criterion", "levels", "weight", "dimension", "tag", "explanation", "check")
HARD_RULE, PRINCIPLE = "hard_rule", "principle"


@dataclass(frozen=True, slots=True, kw_only=True)
class Criterion:
    """A question about a response. `levels` describes scores (score -> what earns it); `weight` is its share.

    `dimension` groups criteria (comprehensiveness, Readability ...), `explanation` helps the judge. `tag` says what
    kind it is: hard_rule (asked for in so many words, can be checked), principle (a quality), or the source's own word.
    `check` is the rule as code can run it (see `rmkit.verifiers.rules`): {"rule": "max_words", "value": 100}.
    """

    criterion: str
    levels: Mapping[int, str] = field(default_factory=dict)
    weight: float = 1.0
    dimension: str | None = None
    tag: str | None = None
    explanation: str | None = None
    check: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.criterion, str) or not self.criterion.strip():
            raise DataError("a criterion needs a text")
        if not all(isinstance(text, str) and text.strip() for text in self.levels.values()):
            raise DataError("a level of a criterion has no description")
        if isinstance(self.weight, bool) or not isinstance(self.weight, int | float) or not math.isfinite(self.weight):
            raise DataError("the weight of a criterion is not a finite number")
        for name in (self.dimension, self.tag, self.explanation):
            if name is not None and not isinstance(name, str):
                raise DataError("dimension, tag and explanation of a criterion are texts")
        if self.check is not None and not (isinstance(self.check, Mapping) and isinstance(self.check.get("rule"), str)):
            raise DataError("the check of a criterion is an object with the name of a rule")


def parse_criterion(value: Any) -> Criterion:
    """A criterion from its JSON object ("question" is another word for "criterion", "skill" for "dimension").

    Raises DataError for anything else than an object of the known fields. A negative weight is a penalty and is legal.
    """
    if not isinstance(value, Mapping):
        raise DataError("a criterion is not an object")
    renamed = {
        {"question": "criterion", "skill": "dimension"}.get(str(key), str(key)): item for key, item in value.items()
    }
    if unknown := sorted(set(renamed) - set(FIELDS)):
        raise DataError(f"unknown field of a criterion: {', '.join(unknown)} (known: {', '.join(FIELDS)})")
    inputs = {key: item for key, item in renamed.items() if item is not None}
    if "criterion" not in inputs:
        raise DataError("a criterion needs a text")
    if "levels" in inputs:
        inputs["levels"] = _levels(inputs["levels"])
    return Criterion(**inputs)


def _levels(value: Any) -> dict[int, str]:
    if not isinstance(value, Mapping):
        raise DataError("levels of a criterion are not an object of score to description")
    try:
        return dict(sorted((int(score), text) for score, text in value.items() if text is not None))
    except (TypeError, ValueError):
        raise DataError("a level of a criterion is not a whole number") from None


def criterion_object(criterion: Criterion) -> dict[str, object]:
    """The JSON object of a criterion; what is at its default is left out, level scores become texts."""
    optional = {
        "levels": {str(score): text for score, text in criterion.levels.items()},
        "dimension": criterion.dimension,
        "tag": criterion.tag,
        "explanation": criterion.explanation,
        "check": dict(criterion.check) if criterion.check else None,
    }
    weight = {} if criterion.weight == 1 else {"weight": criterion.weight}
    return {"criterion": criterion.criterion} | weight | {key: item for key, item in optional.items() if item}


def parse_rubric(value: Any) -> tuple[Criterion, ...]:
    """The criteria of a rubric. Raises DataError for an empty list or a malformed criterion."""
    if not isinstance(value, list) or not value:
        raise DataError("a rubric is a list of at least one criterion")
    return tuple(parse_criterion(item) for item in value)


def rubric_json(criteria: Iterable[Criterion]) -> str:
    """Canonical JSON of a rubric: equal rubrics have equal text."""
    return canonical_json([criterion_object(criterion) for criterion in criteria])
