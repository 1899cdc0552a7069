"""Summaries of Reddit posts and of news (arXiv:2009.01325): comparisons, and ratings of one summary by axis 1-7.

`choice` counts from 0. The prompt is the article of a CNN/DM batch, else subreddit, title and post as the paper writes
them. Confidence 1-9 is the strength.
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
    judgment,
    record,
    response,
    rest,
    unit,
)
from data_pipelines.sources.verdicts import as_text


def is_comparison(row: Row) -> bool:
    return "info" in row and isinstance(row.get("summaries"), list) and "choice" in row


def is_axis(row: Row) -> bool:
    summary = row.get("summary")
    return "info" in row and isinstance(summary, Mapping) and "axes" in summary


def prompt(row: Row) -> str:
    info = record(row, "info")
    if isinstance(article := info.get("article"), str) and article.strip():
        return article
    lines = [("SUBREDDIT: r/", "subreddit"), ("TITLE: ", "title"), ("POST: ", "post")]
    text = "\n".join(f"{start}{info[name]}" for start, name in lines if info.get(name))
    if not info.get("post"):
        raise UnusableRowError("info holds neither post nor article")
    return text


def comparisons(row: Row) -> Iterator[Unit]:
    summaries = row["summaries"]
    if not isinstance(summaries, list) or len(summaries) != 2 or not all(isinstance(one, Mapping) for one in summaries):
        raise UnusableRowError("summaries are not two objects")
    choice = as_text(field(row, "choice"))
    if choice not in ("0", "1"):
        raise UnusableRowError("choice is not 0 or 1")
    extra = dict(record(row, "extra"))
    confidence = extra.pop("confidence", None)
    verdict = judgment(
        field(row, "worker"),
        "human",
        ranks=[0, 1] if choice == "0" else [1, 0],
        strength=confidence,
        extra=extra,
    )
    meta = rest(row, "info", "summaries", "choice", "worker", "extra", "split") | {"info": _about(row)}
    notes = [one.get("note") for one in summaries]
    meta |= {"notes": notes} if any(notes) else {}
    yield unit(
        prompt(row), [_summary(one) for one in summaries], [verdict], in_columns=True, split=row.get("split"), meta=meta
    )


def axes(row: Row) -> Iterator[Unit]:
    summary = record(row, "summary")
    rated = [(0, str(name), value) for name, value in record(summary, "axes").items() if value is not None]
    judgments = [judgment(field(row, "worker"), "human", scores=rated, rationale=summary.get("note"))] if rated else []
    meta = rest(row, "info", "summary", "worker", "split") | {"info": _about(row)}
    yield unit(prompt(row), [_summary(summary)], judgments, split=row.get("split"), meta=meta)


def _summary(one: Mapping[str, Any]) -> dict[str, Any]:
    text = field(one, "text")
    return response(text.strip() if isinstance(text, str) else text, generator=one.get("policy"))


def _about(row: Row) -> dict[str, Any]:
    return rest(record(row, "info"), "post", "article")


COMPARISONS = Source(
    "summarize-from-feedback",
    "info, summaries, choice, worker",
    is_comparison,
    comparisons,
    labels="choice 0 or 1, from 0",
)
AXES = Source(
    "summarize-from-feedback-axis",
    "info, summary with axes, worker",
    is_axis,
    axes,
    labels="axes 1 to 7, null not asked",
)
