"""Forms over benchmarks in their authors' own rows, which the importers of `rmkit ingest` read (a suite's `importers`):
one reading of a published row, whether it is trained on or evaluated.

    first_best    the chosen response, then the others: a pair, or the right one of a list (rules pairs, best_of)
    votes         two responses and what people said of them, a | b | tie (annotators, both_orders, median_vote); rows
                  of the same two responses are one item with several votes
    values        a list with its ratings, else its ranks (nway)
    step_labels   a solution whose steps are labeled right or wrong, all of them (step_f1); an id that a class repeats
                  is read once, as PRMBench's own loader does
    criteria      a response, one criterion and whether each person found it met (criteria_met)

A row that names no subset has that of its folder, where the suite's files lie in folders; else it is in `all`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from data_pipelines.sources.source import Source
from data_pipelines.sources.unit_builder import Unit, UnusableRowError
from evaluation.suites.items import Item
from rmkit import plugins
from rmkit.chat.reader import aligned
from rmkit.errors import DataError
from rmkit.ids import content_hash, parse_messages
from rmkit.types import Candidates, Completion

Gold = dict[str, Any]
VERDICTS = {(0, 1): "a", (1, 0): "b", (0, 0): "tie"}


def read_units(
    form: str, importers: Sequence[str], rows: Sequence[Any], *, where: str, subset: str = "all"
) -> tuple[list[Item], Counter[str]]:
    """The items of published rows, each by the first importer that knows it, and how many rows were left out by reason:
    those that an importer knows and cannot use, and those that have nothing of the form.

    Raises DataError naming the row that no importer can read, and where no row is left.
    """
    sources: list[Source] = [plugins.resolve("sources", name) for name in importers]
    read: Callable[[Unit], tuple[list[int], Gold]] = FORMS[form]
    items: dict[str, Item] = {}
    left_out: Counter[str] = Counter()
    for number, row in enumerate(rows, start=1):
        try:
            units = _units(sources, row, left_out)
        except (UnusableRowError, TypeError) as error:
            fields = ", ".join(row) if isinstance(row, Mapping) else repr(row)[:80]
            raise DataError(
                f"{where}, row {number}: no row of {' or '.join(importers)} ({error}); its fields: {fields}"
            ) from error
        for unit in units:
            try:
                order, gold = read(unit)
                item = _item(unit, order, gold, row_id=str(unit["source_row"] or number), subset=subset)
            except (DataError, KeyError, ValueError) as error:
                left_out[f"rows: {error}"] += 1
                continue
            key = str(len(items))
            if form == "votes":
                key = _same_pair(item)
            elif form == "step_labels":
                key = item.id
            if key not in items:
                items[key] = item
            elif form == "votes":
                items[key] = _joined(items[key], item)
    if not items:
        reasons = "; ".join(f"{n} {reason}" for reason, n in left_out.items()) or "it is empty"
        raise DataError(f"{where}: no row can be used as {form} ({reasons})")
    return list(items.values()), left_out


def _units(sources: Sequence[Source], row: Any, left_out: Counter[str]) -> list[Unit]:
    """The units of the first importer that knows the row by its columns; where none does, of the first that can read
    it, since the suite says what the file is and detection among all files asks for more columns than a reading.

    What an importer knows and cannot use is counted in `left_out`; raises the reason of a row that none can read.
    """
    if not isinstance(row, Mapping):
        raise TypeError("not an object")
    known = next((one for one in sources if one.matches(row)), None)
    if known is not None:
        try:
            return list(known.units(row))
        except UnusableRowError as error:
            left_out[f"rows: {error}"] += 1
            return []
    for at, source in enumerate(sources, start=1):
        try:
            return list(source.units(row))
        except UnusableRowError:
            if at == len(sources):
                raise
    return []


def _item(unit: Unit, order: Sequence[int], gold: Gold, *, row_id: str, subset: str) -> Item:
    texts = [unit["responses"][at] for at in order]
    completions = [
        Completion(parse_messages(t["messages"]), t["generator"], tuple(t["step_ends"] or ())) for t in texts
    ]
    candidates = aligned(
        Candidates(
            parse_messages(unit["prompt"]),
            tuple(completions),
            tuple(json.loads(unit["tools"] or "[]")),
            unit["reference"],
            tuple(json.loads(unit["rubric"] or "[]")),
        )
    )
    name = unit["subset"] or subset
    return Item(f"{name}/{row_id}", name, content_hash(unit["prompt"]), gold, candidates)


def _first_best(unit: Unit) -> tuple[list[int], Gold]:
    ranks = [rank for rank in _ranks(unit) if rank is not None]
    if ranks.count(0) < 1 or ranks.count(0) == len(ranks):
        raise ValueError("no response is better than the others")
    return sorted(range(len(ranks)), key=lambda at: ranks[at]), {"num_correct": ranks.count(0)}


def _ranks(unit: Unit) -> list[int | None]:
    ranks = [one["ranks"] for one in unit["judgments"] or [] if one["ranks"]]
    if not ranks:
        raise ValueError("no verdict")
    return list(ranks[0])


def _votes(unit: Unit) -> tuple[list[int], Gold]:
    if len(unit["responses"]) != 2:
        raise ValueError(f"{len(unit['responses'])} responses, expected two")
    ranks = [tuple(one["ranks"]) for one in unit["judgments"] or [] if one["ranks"]]
    return [0, 1], {"votes": [VERDICTS[one] for one in ranks]}


def _values(unit: Unit) -> tuple[list[int], Gold]:
    n = len(unit["responses"])
    [first, *_] = unit["judgments"] or [{"scores": None, "ranks": None}]
    if first["scores"]:
        rated = {
            one["response"]: one["value"] for one in first["scores"] if one["aspect"] == first["scores"][0]["aspect"]
        }
        return list(range(n)), {"values": [rated.get(at) for at in range(n)]}
    return list(range(n)), {"values": [None if rank is None else -float(rank) for rank in _ranks(unit)]}


def _step_labels(unit: Unit) -> tuple[list[int], Gold]:
    [labels, *_] = [one["step_labels"] for one in unit["judgments"] or [] if one["step_labels"]] or [None]
    [response] = unit["responses"]
    if not labels or len(labels) != len(response["step_ends"] or ()):
        raise ValueError("no label for every step")
    return [0], {"labels": labels}


def _criteria(unit: Unit) -> tuple[list[int], Gold]:
    [criterion] = json.loads(unit["rubric"] or "[]")
    labels = [bool(score["value"]) for one in unit["judgments"] or [] for score in one["scores"] or []]
    if not labels:
        raise ValueError("nobody said whether the criterion is met")
    return [0], {"criterion": criterion["criterion"], "labels": labels}


FORMS: Mapping[str, Callable[[Unit], tuple[list[int], Gold]]] = {
    "first_best": _first_best,
    "votes": _votes,
    "values": _values,
    "step_labels": _step_labels,
    "criteria": _criteria,
}


def _same_pair(item: Item) -> str:
    """Equal for rows over the same two responses, in either order."""
    assert item.candidates is not None
    return " ".join([item.subset, item.cluster, *sorted(one.text for one in item.candidates.completions)])


def _joined(first: Item, other: Item) -> Item:
    """The first row with the other's votes, turned to its order."""
    assert first.candidates is not None
    assert other.candidates is not None
    turned = first.candidates.completions[0].messages != other.candidates.completions[0].messages
    votes = [{"a": "b", "b": "a"}.get(vote, vote) if turned else vote for vote in other.gold["votes"]]
    return Item(first.id, first.subset, first.cluster, {"votes": [*first.gold["votes"], *votes]}, first.candidates)
