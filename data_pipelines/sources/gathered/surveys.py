"""Survey exports: a row a person, a column a question.

Qualtrics    previews and unfinished answers are no votes; `--wide '*_Q1' --items FILE` reads one column an item
SurveyMonkey two header rows joined as "question: sub-column"; the columns of one question are the replies of one item
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from data_pipelines.sources.gathered.gather import Gather, Gathered
from data_pipelines.sources.reading.streams import Reject, excerpt
from data_pipelines.sources.recognize import Hints, wide_columns
from data_pipelines.sources.unit_builder import Row
from data_pipelines.sources.verdicts import Values
from rmkit.errors import DataError


def is_qualtrics(sample: Sequence[Row]) -> bool:
    return all({"ResponseId", "Finished", "Status"} <= set(row) for row in sample)


def of_qualtrics(file: Iterator[Row], hints: Hints) -> Iterator[Gathered]:
    for row in file:
        if str(row["Finished"]).lower() not in ("true", "1") or str(row["Status"]).lower() in (
            "1",
            "survey preview",
            "preview",
        ):
            yield Reject(
                0, "a preview or an unfinished answer", excerpt(str(row["ResponseId"])), str(row["ResponseId"])
            )
            continue
        if not hints.wide:
            raise DataError(
                "a Qualtrics export has one column a question: name those that are votes with --wide, and their "
                "texts with "
                "--items FILE (key column: the question's name), e.g. --wide '*_Q1' --items items.csv"
            )
        columns = wide_columns(hints.wide, list(row))
        rest = {name: value for name, value in row.items() if name not in columns}
        for name in columns:
            if row[name] not in (None, ""):
                yield {**rest, "item": name, "preference": row[name], "is_survey": True}


def is_surveymonkey(sample: Sequence[Row]) -> bool:
    return all({"Respondent ID", "Collector ID"} <= set(row) for row in sample)


def of_surveymonkey(file: Iterator[Row], hints: Hints) -> Iterator[Gathered]:
    values = hints.values or Values()
    for row in file:
        questions: dict[str, dict[str, str]] = {}
        for name, value in row.items():
            question, sign, part = name.partition(": ")
            if sign:
                questions.setdefault(question, {})[part] = value
        rated = {q: parts for q, parts in questions.items() if len(parts) > 1}
        notes = [
            v for q, parts in questions.items() if q not in rated for v in parts.values() if isinstance(v, str) and v
        ]
        if not rated:
            raise DataError("a SurveyMonkey export has two header rows: --header-rows 2")
        for question, parts in rated.items():
            known = [values.numbers.get(str(value).strip().lower(), value or None) for value in parts.values()]
            yield {
                "item": question,
                "survey_labels": list(parts),
                "survey_ratings": known,
                "survey_respondent": row["Respondent ID"],
                "survey_note": "\n".join(notes) or None,
            }


QUALTRICS = Gather("qualtrics", "Qualtrics answers", is_qualtrics, of_qualtrics)
SURVEYMONKEY = Gather("surveymonkey", "SurveyMonkey answers", is_surveymonkey, of_surveymonkey)
