"""What the numbers of known forms mean: lowest, highest, the names of the steps between.

Stored with the source and exported with its rows, so that "good" means above the middle of the scale and not of what
happens to occur. A form that is not listed has no known scale.
"""

from __future__ import annotations

from collections.abc import Iterable

from data_pipelines.sources.published.helpsteer import ATTRIBUTES
from data_pipelines.sources.recognize import Plan
from warehouse.write.load import LabelScale


def _yes_no(aspect: str) -> LabelScale:
    return LabelScale(aspect=aspect, name="yes or no", low=0, high=1, levels=("no", "yes"))


def _graded(aspects: Iterable[str], low: float, high: float) -> tuple[LabelScale, ...]:
    return tuple(LabelScale(aspect=aspect, name="likert", low=low, high=high) for aspect in aspects)


SCALES: dict[str, tuple[LabelScale, ...]] = {
    "beavertails": (_yes_no("is_safe"),),
    "helpsteer": _graded(ATTRIBUTES, 0, 4),
    "hh-red-team": _graded(("attack_success",), 0, 4),
    "prometheus-feedback": _graded(("score",), 1, 5),
    "reaction-log": (_yes_no("thumb"),),
    "summarize-from-feedback-axis": _graded(("overall", "accuracy", "coverage", "coherence"), 1, 7),
    "talks": (_yes_no("thumb"),),
    "ultrafeedback": _graded(("helpfulness", "honesty", "instruction_following", "truthfulness"), 1, 5),
    "webgpt": (LabelScale(aspect="score", name="preference", low=-1, high=1),),
}


def scales_of(plans: Iterable[Plan]) -> tuple[LabelScale, ...]:
    """The scales of the labels that these ways of reading give, each once."""
    scales: dict[LabelScale, None] = {}
    for plan in plans:
        if plan.form is not None and "label" in plan.form.roles:
            scales[_yes_no("desirable")] = None
        scales |= dict.fromkeys(SCALES.get(plan.name, ()))
    return tuple(scales)
