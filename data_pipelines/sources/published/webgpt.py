"""WebGPT comparisons (arXiv:2112.09332): two answers with quotes, preference scores in [-1, 1], score_0 = -score_1."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from data_pipelines.sources.source import Source
from data_pipelines.sources.unit_builder import (
    Row,
    Unit,
    UnusableRowError,
    field,
    finite,
    judgment,
    ranks_of,
    response,
    rest,
    unit,
)

_USED = ("question", "answer_0", "answer_1", "score_0", "score_1")


def matches(row: Row) -> bool:
    return all(name in row for name in ("question", "answer_0", "answer_1", "score_0", "score_1"))


def pairs(row: Row) -> Iterator[Unit]:
    """Quotes and token columns stay in meta."""
    question = field(row, "question")
    if isinstance(question, Mapping):
        prompt, about = field(question, "full_text"), rest(question, "full_text")
    elif isinstance(question, str):
        prompt, about = question, {}
    else:
        raise UnusableRowError("question is neither text nor an object")
    scores = [finite(field(row, name), "score") for name in ("score_0", "score_1")]
    verdict = judgment(
        "annotator",
        "human",
        ranks=ranks_of(scores),
        strength=abs(scores[0] - scores[1]),
        scores=[(at, "score", value) for at, value in enumerate(scores)],
    )
    answers = [response(field(row, name), generator="webgpt") for name in ("answer_0", "answer_1")]
    meta = rest(row, *_USED) | ({"question": about} if about else {})
    yield unit(prompt, answers, [verdict], in_columns=True, subset=about.get("dataset"), meta=meta)


WEBGPT = Source(
    "webgpt",
    "question, answer_0, answer_1, score_0, score_1",
    matches,
    pairs,
    labels="scores -1 to 1, equal ones are a tie",
)
