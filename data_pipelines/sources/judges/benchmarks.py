"""Expert rubrics whose rows spread over columns: HealthBench's meta-evaluation, PRBench, ProfBench.

HealthBench meta  a row a criterion of one reply, with one true or false a physician
PRBench           turns are the columns prompt_0, response_0, prompt_1 ...; reference texts stand before their turn
ProfBench         replies are the columns MODEL_response; criteria say for each model whether it fulfils them
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from data_pipelines.sources.rubric_text import criteria
from data_pipelines.sources.source import Source
from data_pipelines.sources.unit_builder import (
    Row,
    Unit,
    UnusableRowError,
    field,
    judgment,
    records,
    response,
    rest,
    unit,
)
from rubrics.criteria import Criterion, rubric_json

_TURN = re.compile(r"(prompt|response|reference_texts)_\d+")


def is_healthbench_meta(row: Row) -> bool:
    return all(name in row for name in ("completion", "rubric", "binary_labels", "anonymized_physician_ids"))


def healthbench_meta(row: Row) -> Iterator[Unit]:
    text, labels, raters = field(row, "rubric"), row["binary_labels"], row["anonymized_physician_ids"]
    if not isinstance(text, str) or not text.strip():
        raise UnusableRowError("rubric is not text")
    if not isinstance(labels, list) or not isinstance(raters, list) or len(labels) != len(raters):
        raise UnusableRowError("binary_labels and anonymized_physician_ids have different lengths")
    judgments = [
        judgment(rater, "human", scores=[(0, text, float(bool(label)))])
        for rater, label in zip(raters, labels, strict=True)
        if label is not None
    ]
    rubric = rubric_json([Criterion(criterion=text)])
    meta = rest(row, "prompt", "completion", "rubric", "binary_labels", "anonymized_physician_ids")
    answer = response(field(row, "completion"))
    yield unit(field(row, "prompt"), [answer], judgments, rubric=rubric, subset=row.get("category"), meta=meta)


def is_prbench(row: Row) -> bool:
    return "prompt_0" in row and "rubric" in row and "decision_type" in row


def prbench(row: Row) -> Iterator[Unit]:
    talk: list[dict[str, Any]] = []
    for at in range(100):
        question = row.get(f"prompt_{at}")
        if question in (None, ""):
            break
        if at and row.get(f"response_{at - 1}"):
            talk.append({"role": "assistant", "content": row[f"response_{at - 1}"]})
        texts = row.get(f"reference_texts_{at}") or []
        if not isinstance(question, str) or not isinstance(texts, list):
            raise UnusableRowError("a turn is not text, or its reference texts are no list")
        before = "".join(f"Reference Text {n}:\n{text}\n\n" for n, text in enumerate(texts))
        talk.append({"role": "user", "content": before + question})
    if not talk:
        raise UnusableRowError("missing field prompt_0")
    meta = {name: value for name, value in rest(row, "rubric", "task").items() if not _TURN.fullmatch(name)}
    rubric = rubric_json(criteria(field(row, "rubric")))
    yield unit(talk, [], kind="rubric", rubric=rubric, row_id=row.get("task"), subset=row.get("field"), meta=meta)


def is_profbench(row: Row) -> bool:
    return "rubrics" in row and "prompt" in row and sum(name.endswith("_response") for name in row) >= 2


def profbench(row: Row) -> Iterator[Unit]:
    items = records(row, "rubrics")
    models = [
        name.removesuffix("_response") for name in row if name.endswith("_response") and row[name] not in (None, "")
    ]
    own = criteria(list(items))
    scores = [
        (at, criterion.criterion, float(bool(item[f"{model}_fulfilment"])))
        for at, model in enumerate(models)
        for item, criterion in zip(items, own, strict=True)
        if item.get(f"{model}_fulfilment") is not None
    ]
    judgments = [judgment("expert", "human", scores=scores)] if scores else []
    answers = [response(row[f"{model}_response"], generator=model) for model in models]
    meta = rest(row, "rubrics", "prompt", "task_id", "domain", *(f"{model}_response" for model in models))
    yield unit(
        field(row, "prompt"),
        answers,
        judgments,
        rubric=rubric_json(own),
        row_id=row.get("task_id"),
        subset=row.get("domain"),
        meta=meta,
    )


HEALTHBENCH_META = Source(
    "healthbench-meta",
    "prompt, completion, rubric, binary_labels, anonymized_physician_ids",
    is_healthbench_meta,
    healthbench_meta,
    labels="true or false a physician",
    is_benchmark=True,
)
PRBENCH = Source(
    "prbench",
    "prompt_0 ..., rubric, decision_type",
    is_prbench,
    prbench,
    labels="points, negative for pitfalls",
    is_benchmark=True,
)
PROFBENCH = Source(
    "profbench",
    "prompt, rubrics, MODEL_response ...",
    is_profbench,
    profbench,
    labels="Critical 4, Major 3, Minor 2, Additional 1",
    is_benchmark=True,
)
