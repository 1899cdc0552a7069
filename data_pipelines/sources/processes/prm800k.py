"""PRM800K (arXiv:2305.20050): people rated each step of model solutions -1 (wrong), 0 (neutral) or 1 (right).

The path that was followed (chosen completions, or the labeller's own step) is one unit in steps. Each alternative that
was rated at a step but not followed is a further unit, the path so far with that step, in which only the last step is
labeled, so no rating counts twice. Labels: -1 is 0, 1 is 1, and 0 is 0.5 (a fraction: whoever trains decides whether
neutral counts as right, as the paper does). Label null: not rated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from data_pipelines.sources.source import Source
from data_pipelines.sources.unit_builder import (
    Row,
    Unit,
    UnusableRowError,
    field,
    in_steps,
    judgment,
    record,
    records,
    rest,
    unit,
)

LABELS: dict[float, float] = {-1: 0.0, 0: 0.5, 1: 1.0}
Path = list[tuple[str, float | None]]


def matches(row: Row) -> bool:
    label, question = row.get("label"), row.get("question")
    return isinstance(question, Mapping) and "problem" in question and isinstance(label, Mapping) and "steps" in label


def steps(row: Row) -> Iterator[Unit]:
    question, label = record(row, "question"), record(row, "label")
    path: Path = []
    result = 0
    for step in records(label, "steps"):
        followed, others = _step(step)
        for text, rating in others:
            result += 1
            yield _unit(row, question, label, [(before, None) for before, _ in path] + [(text, rating)], followed=False)
        if followed is None:
            break
        path.append(followed)
    if path:
        yield _unit(row, question, label, path, followed=True)
    elif not result:
        raise UnusableRowError("no steps")


def _step(step: Mapping[str, Any]) -> tuple[tuple[str, float | None] | None, Path]:
    """(the step that was followed, the other rated ones). Where nothing was chosen, a sole completion ends the path."""
    completions = (
        [(_text(item), _label(item)) for item in records(step, "completions")] if step.get("completions") else []
    )
    chosen, human = step.get("chosen_completion"), step.get("human_completion")
    followed: tuple[str, float | None] | None = None
    if isinstance(human, Mapping) and chosen is None:
        followed = _text(human), _label(human)
    elif chosen is None and len(completions) == 1:
        chosen = 0
    if chosen is not None:
        if isinstance(chosen, bool) or not isinstance(chosen, int) or not 0 <= chosen < len(completions):
            raise UnusableRowError("chosen_completion names no completion")
        followed = completions.pop(chosen)
    return followed, [item for item in completions if item[1] is not None]


def _text(item: Mapping[str, Any]) -> str:
    text = field(item, "text")
    if not isinstance(text, str):
        raise UnusableRowError("a step is not text")
    return text


def _label(item: Mapping[str, Any]) -> float | None:
    rating = item.get("rating")
    if rating is None:
        return None
    if isinstance(rating, bool) or not isinstance(rating, int | float) or rating not in LABELS:
        raise UnusableRowError("a step rating is not -1, 0, 1 or null")
    return LABELS[rating]


def _unit(row: Row, question: Row, label: Row, path: Path, *, followed: bool) -> Unit:
    verdict = judgment(row.get("labeler") or "labeler", "human", step_labels=[rating for _, rating in path])
    meta = rest(row, "question", "label", "labeler") | {
        "question": rest(question, "problem", "pre_generated_steps"),
        "finish_reason": label.get("finish_reason"),
        "total_time_ms": label.get("total_time"),
        "followed": followed,
    }
    return unit(field(question, "problem"), [in_steps([text for text, _ in path])], [verdict], kind="steps", meta=meta)


PRM800K = Source("prm800k", "question.problem, label.steps", matches, steps, labels="1 right, 0 neutral, -1 wrong")
