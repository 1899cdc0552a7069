"""Rubrics in the forms they were published in: BiGGen-Bench, FLASK, DeepResearch Bench, HealthBench.

A unit without responses each; what the forms mean is told in `rubrics.importers`. The rest of a row, such as a
reference answer, stays in meta.
"""

from __future__ import annotations

from collections.abc import Iterator

from data_pipelines.sources.source import Source
from data_pipelines.sources.unit_builder import Row, Unit, UnusableRowError, rest, unit
from rmkit.errors import DataError
from rubrics.criteria import rubric_json
from rubrics.importers import form_of, import_rubric

USED = ("system_prompt", "input", "instruction", "prompt", "score_rubric", "skill_rubrics", "criterions", "rubrics")
IDS = ("id", "prompt_id", "question_id", "idx")


def matches(row: Row) -> bool:
    """Whether it is one of the four."""
    try:
        return form_of(row) != "house"
    except DataError:
        return False


def units(row: Row) -> Iterator[Unit]:
    """The rubric with its request. Raises UnusableRowError naming what is missing or does not add up."""
    try:
        prompt, criteria = import_rubric(row)
    except DataError as error:
        raise UnusableRowError(str(error)) from None
    row_id = next((row[name] for name in IDS if row.get(name) is not None), None)
    yield unit(list(prompt), [], kind="rubric", rubric=rubric_json(criteria), row_id=row_id, meta=rest(row, *USED))


PUBLISHED_RUBRICS = Source(
    "published-rubrics",
    "BiGGen-Bench, FLASK, DeepResearch Bench, HealthBench rubrics",
    matches,
    units,
    labels="weights",
)
