"""How far people agree: by question, by label, by item, and over time.

A task asks one question or several (the aspects of ratings); each has its own alpha on two levels. Agreement on a label
is specific (Dice 1945): of the answers that say it, how often another answer to the same thing says it too. Only
answers in items' own slots count.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from data_pipelines.steps.agreement import alpha_interval
from labeling_ui.projects.work import counted
from labeling_ui.quality import Alpha, Share, agreement

PAIR_QUESTION = "which is better"


@dataclass(frozen=True, slots=True)
class QuestionAgreement:
    """`things` (items, responses of items, or steps) were judged by two or more; `same` counts pairs of answers."""

    question: str
    nominal: Alpha
    ordinal: Alpha
    things: int
    same: Share


@dataclass(frozen=True, slots=True)
class LabelAgreement:
    """`answers` say the label; `shared` of their pairs with another answer to the same thing say it both."""

    question: str
    label: str
    answers: int
    shared: Share


@dataclass(frozen=True, slots=True)
class ItemAgreement:
    item: int
    answers: int
    different: int
    same: Share


def by_question(work: pl.DataFrame) -> list[QuestionAgreement]:
    """One row a question, the pairs' first; empty without answers."""
    result = []
    if not _verdicts(work).is_empty():
        whole = agreement(work)
        result.append(QuestionAgreement(PAIR_QUESTION, whole.nominal, whole.ordinal, whole.items, whole.pairs))
    for (question,), rows in _values(work).group_by("question", maintain_order=True):
        thing = rows.select(pl.struct("item", "place").rank("dense"))["item"].cast(pl.Int64).to_numpy() - 1
        scale = rows["value"].unique().sort()
        counts = np.zeros((int(thing.max()) + 1, len(scale)), np.int64)
        np.add.at(counts, (thing, scale.search_sorted(rows["value"]).to_numpy()), 1)
        alphas = [
            Alpha(level, value, (low, high))
            for level in ("nominal", "ordinal")
            for value, low, high in [alpha_interval(counts, level=level)]
        ]
        totals = counts.sum(1)
        same = Share(int((counts * (counts - 1) // 2).sum()), int((totals * (totals - 1) // 2).sum()))
        result.append(QuestionAgreement(str(question), alphas[0], alphas[1], int((totals > 1).sum()), same))
    return result


def by_label(work: pl.DataFrame) -> list[LabelAgreement]:
    """One row a label of each question, in the order of the question's scale."""
    result = []
    rows = pl.concat([_verdicts(work), _values(work).with_columns(label=_number(pl.col("value")))], how="diagonal")
    sizes = rows.with_columns(
        alike=pl.len().over("question", "item", "place", "label") - 1,
        others=pl.len().over("question", "item", "place") - 1,
    )
    grouped = sizes.group_by("question", "label", maintain_order=True).agg(
        answers=pl.len(),
        right=pl.col("alike").cast(pl.Int64).sum(),
        n=pl.col("others").cast(pl.Int64).sum(),
        value=pl.col("value").first(),
    )
    for row in grouped.sort("question", "value", "label").to_dicts():
        result.append(LabelAgreement(row["question"], row["label"], row["answers"], Share(row["right"], row["n"])))
    return result


def by_item(work: pl.DataFrame, *, limit: int = 100) -> list[ItemAgreement]:
    """The items with two or more answers on which people agree least, worst first."""
    answers = (
        counted(work)
        .group_by("item", "answer")
        .len("alike")
        .group_by("item")
        .agg(
            answers=pl.col("alike").sum().cast(pl.Int64),
            different=pl.len(),
            same=(pl.col("alike").cast(pl.Int64) * (pl.col("alike").cast(pl.Int64) - 1) // 2).sum(),
        )
    )
    rows = answers.filter(pl.col("answers") > 1).with_columns(pairs=pl.col("answers") * (pl.col("answers") - 1) // 2)
    worst = rows.sort(pl.col("same") / pl.col("pairs"), -pl.col("answers"), "item").head(limit)
    return [
        ItemAgreement(r["item"], r["answers"], r["different"], Share(r["same"], r["pairs"])) for r in worst.to_dicts()
    ]


def over_time(work: pl.DataFrame, *, parts: int = 12) -> list[tuple[datetime, Share]]:
    """How often two answers to an item are the same, for parts of the time that the work has gone on.

    An item belongs to the moment of its last answer. Parts are equally long; one without items is left out.
    """
    answers = counted(work)
    alike = answers.group_by("item", "answer").agg(n=pl.len().cast(pl.Int64), last=pl.col("time").max())
    items = (
        alike.group_by("item")
        .agg(last=pl.col("last").max(), total=pl.col("n").sum(), same=(pl.col("n") * (pl.col("n") - 1) // 2).sum())
        .filter(pl.col("total") > 1)
    )
    if items.is_empty():
        return []
    begin, end = items["last"].min(), items["last"].max()
    spent = (pl.col("last") - begin).dt.total_microseconds()
    whole = float((end - begin) / timedelta(microseconds=1)) or 1.0  # type: ignore[operator]
    at = (spent * parts / whole).floor().cast(pl.Int64).clip(0, parts - 1)
    grouped = items.group_by(part=at).agg(
        pl.col("last").min(), right=pl.col("same").sum(), n=(pl.col("total") * (pl.col("total") - 1) // 2).sum()
    )
    return [(row["last"], Share(row["right"], row["n"])) for row in grouped.sort("last").to_dicts()]


def _verdicts(work: pl.DataFrame) -> pl.DataFrame:
    """Verdicts on pairs, as labels: 1 or 2 is the better by its stored place."""
    pairs = counted(work).filter(pl.col("ranks").list.len() == 2, ~pl.col("ranks").list.contains(None))
    first, second = (pl.col("ranks").list.get(at) for at in (0, 1))
    return pairs.select(
        "item",
        question=pl.lit(PAIR_QUESTION),
        place=pl.lit(0, pl.Int64),
        value=(first - second).sign().cast(pl.Float64),
        label=pl.when(first < second)
        .then(pl.lit("1 is better"))
        .when(first > second)
        .then(pl.lit("2 is better"))
        .otherwise(pl.lit("tie")),
    )


def _values(work: pl.DataFrame) -> pl.DataFrame:
    """What was said of parts of an item: item, question, place, value."""
    rows = counted(work).select("item", "values").explode("values").drop_nulls("values")
    return rows.select("item", pl.col("values").struct.unnest()).sort("question")


def _number(value: pl.Expr) -> pl.Expr:
    return value.map_elements(lambda one: f"{one:g}", return_dtype=pl.String)
