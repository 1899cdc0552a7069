"""Nectar (berkeley-nest): up to seven answers of different models a prompt, ranked by GPT-4; rank 1 is best.

Columns prompt ("\\n\\nHuman: ... \\n\\nAssistant: "), answers (answer, model, rank), turns, num_responses, source,
good_natured.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from data_pipelines.sources.published.hh import transcript
from data_pipelines.sources.source import Source
from data_pipelines.sources.unit_builder import (
    Row,
    Unit,
    UnusableRowError,
    field,
    finite,
    judgment,
    ranks_of,
    records,
    response,
    rest,
    unit,
)


def matches(row: Row) -> bool:
    answers = row.get("answers")
    return (
        "prompt" in row
        and isinstance(answers, list)
        and all(isinstance(item, dict) and "answer" in item and "rank" in item for item in answers)
    )


def lists(row: Row) -> Iterator[Unit]:
    items = records(row, "answers")
    if not items:
        raise UnusableRowError("no responses")
    talk = transcript(field(row, "prompt"))
    if talk[-1]["role"] == "assistant" and not talk[-1]["content"]:
        talk.pop()  # the mark that asks for the reply
    answers = [response(_answer(item), generator=item.get("model")) for item in items]
    ranks = ranks_of([finite(field(item, "rank"), "rank") for item in items], best="low")
    verdict = judgment("gpt-4", "llm", ranks=ranks)
    yield unit(talk, answers, [verdict], row_id=row.get("id"), meta=rest(row, "id", "prompt", "answers"))


def _answer(item: Row) -> Any:
    """The answer alone: some run on into a talk that the model made up."""
    text = field(item, "answer")
    return text.partition("\n\nHuman:")[0] if isinstance(text, str) else text


NECTAR = Source("nectar", "prompt, answers with rank and model", matches, lists, labels="rank 1 is best")
