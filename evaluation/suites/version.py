"""A dataset version as a suite's data: `--data NAME[@VERSION][:SPLIT]` (or an export folder), split `test` by default.

For suites of the form `absolute`: every rated response of a row, an item for each aspect, whose subset is the aspect
where the split has several; good is what lies above the middle of the scale that the source states, else of the
ratings in the split. For suites of the forms `pairs` (decided pairs of two replies or of a list, each with its
label's probability and its share of the row, so that a list counts once), `nway` (lists with ranks or ratings),
`steps` (labeled steps) and `annotators` (pairs with the single votes of people, which stand in the warehouse and in no
export). An item's cluster is the row's prompt family, its subset the row's subset or source; what the
form cannot use is counted beside the source.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.suites.items import Item
from evaluation.suites.suite import Suite
from rmkit.data.example import MANIFEST, Example, read_manifest
from rmkit.data.export_folder import dataset_of, examples_of, export_folder
from rmkit.data.pairs import Pair, read_pairs
from rmkit.errors import DataError, UsageError
from rmkit.paths import warehouse_path
from rmkit.storage.address import is_address
from rmkit.storage.fetch import fetch
from warehouse.store import open_warehouse
from warehouse.versions.checkout import checkout
from warehouse.versions.versions import get, resolve

DEFAULT_SPLIT = "test"


def local_data(data: str) -> str:
    """`data` with the path of what was fetched where it is an address; the split behind it stays."""
    if not is_address(data):
        return data
    address, _ = split_of(data)
    return f"{fetch(address)}{data[len(address) :]}"


def names_version(data: str) -> bool:
    """Whether `data` means a dataset version (or its export folder) rather than a benchmark file: NAME@VERSION, or the
    NAME alone of a dataset in the warehouse, where no file is called so."""
    name = split_of(data)[0]
    if (Path(name).expanduser() / MANIFEST).is_file():
        return True
    return not Path(data).expanduser().exists() and ("@" in data or name in _datasets())


def _datasets() -> set[str]:
    if not warehouse_path().exists():
        return set()
    with open_warehouse(read_only=True) as connection:
        return {str(name) for (name,) in connection.execute("SELECT name FROM dataset").fetchall()}


@dataclass(frozen=True, slots=True)
class VersionItems:
    """The items of a split, the name of the source, ref (NAME@vN), split and digest of the dataset, None where its
    folder does not say, and what the form could not use."""

    items: list[Item]
    source: str
    version: Mapping[str, str | None]
    left_out: Mapping[str, int]


def with_split(data: str, split: str) -> str:
    """`data` with the split behind it where it means a dataset and names none. Raises UsageError where a split is asked
    for that it cannot have."""
    dataset, own = names_version(data), split_of(data)
    if split != DEFAULT_SPLIT and not (dataset and own in ((data, DEFAULT_SPLIT), (own[0], split))):
        what = f"{data} names its own split" if dataset else f"{data} is no dataset, its files have no splits"
        raise UsageError(f"--split {split}: {what}")
    return f"{data}:{split}" if dataset and own[0] == data else data


def version_items(suite: Suite, data: str) -> VersionItems:
    """The items of a dataset's split. Raises UsageError for a form that a dataset row cannot give, DataError where
    nothing in the split can be used."""
    name, split = split_of(data)
    if suite.form in ("annotators", "votes"):
        return _voted(suite, name, split)
    folder = export_folder(name)
    examples = examples_of(folder, split)
    identity = dataset_of(folder)
    if not Path(name).expanduser().exists():
        name = identity["ref"] or name  # the version that a bare name or a branch stands for today
    match suite.form:
        case "pairs" | "first_best":
            items, skipped = _pairs(examples)
        case "nway" | "values":
            items, skipped = _lists(examples)
        case "steps":
            items, skipped = _steps(examples)
        case "absolute":
            items, skipped = _absolute(examples, read_manifest(folder).get("label_scales") or [])
        case _:
            raise UsageError(
                f"suite {suite.name} takes rows of the form {suite.form!r}; "
                "versions give pairs, nway, steps, absolute and annotators"
            )
    if not items:
        reasons = "; ".join(f"{count} {reason}" for reason, count in sorted(skipped.items()))
        steps = suite.form == "pairs" and any(example.row["step_labels"] for example in examples)
        hint = f"; solutions in labeled steps: rmkit eval MODEL --suite steps --data {name}:{split}" if steps else ""
        raise DataError(f"{data}: nothing to evaluate, no row can be used by suite {suite.name} ({reasons}){hint}")
    version = {"ref": identity["ref"], "split": split, "digest": identity["digest"]}
    return VersionItems(items, f"{name}:{split}", version, dict(sorted(skipped.items())))


def _voted(suite: Suite, name: str, split: str) -> VersionItems:
    """Pairs with the votes of people; what models judged is left out."""
    if Path(name).expanduser().exists():
        raise UsageError(
            f"an export holds no single votes; name the dataset version: rmkit eval MODEL --suite {suite.name} --data "
            "NAME@VERSION"
        )
    with open_warehouse(read_only=True) as connection:
        version = get(connection, version_id := resolve(connection, name))
        rows = checkout(connection, version_id, split=None if split == "all" else split, votes=True).to_pylist()
    items, left_out = [], Counter[str]()
    for row in rows:
        judged = [vote for vote in row["votes"] if vote["ranks"] and None not in vote["ranks"]]
        people = [vote for vote in judged if vote["rater_kind"] in ("human", "unknown")]
        left_out["votes of models"] += len(judged) - len(people)
        if len(row["responses"] or []) != 2 or not people:
            left_out["rows without a pair that people voted on"] += 1
            continue
        votes = [("a", "tie", "b")[(first > second) - (first < second) + 1] for first, second in
                 (vote["ranks"] for vote in people)]  # fmt: skip
        items.append(_item(Example(row), {"votes": votes}))
    if not items:
        reasons = "; ".join(f"{count} {reason}" for reason, count in sorted((+left_out).items())) or "no rows"
        raise DataError(f"{name}:{split}: nothing to evaluate by suite {suite.name} ({reasons})")
    identity = {"ref": version.ref, "split": split, "digest": version.digest}
    return VersionItems(items, f"{version.ref}:{split}", identity, dict(sorted((+left_out).items())))


def split_of(data: str) -> tuple[str, str]:
    """The data and its split, `test` where none is named."""
    name, colon, split = data.rpartition(":")
    return (name, split) if colon and "/" not in split else (data, DEFAULT_SPLIT)


def _pairs(examples: list[Example]) -> tuple[list[Item], Mapping[str, int]]:
    """Decided pairs, the better response first, by prompt family."""
    pairs, skipped = read_pairs(examples)
    left_out = Counter({f"rows: {reason}": count for reason, count in skipped.items()})
    left_out["pairs without a decision"] = sum(pair.p == 0.5 for pair in pairs)
    # Clusters are drawn in the order in which they come: by family, so that intervals are those of rmkit.metrics.
    return [_pair_item(pair) for pair in sorted(pairs, key=lambda pair: pair.family) if pair.p != 0.5], +left_out


def _pair_item(pair: Pair) -> Item:
    first_better = pair.p > 0.5
    requests, positions, p = pair.candidates, (pair.i, pair.j), max(pair.p, 1 - pair.p)
    if not first_better:
        requests, positions = requests.of(*requests.completions[::-1]), positions[::-1]
    gold = ({"p": p} if p < 1 else {}) | ({"share": pair.share} if pair.share < 1 else {})
    return Item(f"{pair.subset}/{pair.id}", pair.subset, f"family-{pair.family}", gold, requests, positions)


def _lists(examples: list[Example]) -> tuple[list[Item], Mapping[str, int]]:
    """Lists of two responses or more with ranks, or with ratings on one aspect that all of them have."""
    items, left_out = [], Counter[str]()
    for example in examples:
        values = _values(example.row)
        if values is None:
            left_out["rows without ranks or ratings of two responses"] += 1
            continue
        items.append(_item(example, {"values": values}))
    return items, left_out


def _item(example: Example, gold: Mapping[str, Any]) -> Item:
    subset = str(example.row["subset"] or example.row["source"] or "all")
    return Item(f"{subset}/{example.id}", subset, f"family-{example.row['family']}", gold, example.candidates)


def _steps(examples: list[Example]) -> tuple[list[Item], Mapping[str, int]]:
    """Solutions whose steps are labeled up to the first wrong one (a label below a half), or all right."""
    items, left_out = [], Counter[str]()
    for example in examples:
        labels, ends = example.row["step_labels"] or [], example.steps
        wrong = next((i for i, label in enumerate(labels) if label is not None and label < 0.5), None)
        before = labels[:wrong] if wrong is not None else labels
        if len(example.row["responses"] or []) != 1 or not labels or len(labels) != len(ends):
            left_out["rows without one response in labeled steps"] += 1
        elif None in before:
            left_out["rows with unlabeled steps before the first error"] += 1
        else:
            items.append(_item(example, {"first_error": -1 if wrong is None else wrong}))
    return items, left_out


def _absolute(examples: list[Example], scales: Sequence[Mapping[str, Any]]) -> tuple[list[Item], Mapping[str, int]]:
    """A response with its mean rating on each aspect. A scale on which lower is better is turned around."""
    known = {scale["aspect"]: scale for scale in scales}
    rated = [
        (example, score["response"] or 0, score["aspect"] or "label", float(score["value"]))
        for example in examples
        for score in example.row["scores"] or []
        if score["value"] is not None
    ]
    aspects = sorted({aspect for _, _, aspect, _ in rated})
    middle: dict[str, float] = {}
    for aspect in aspects:
        values = [value for _, _, name, value in rated if name == aspect]
        low, high = (known.get(aspect, {}).get(end) for end in ("low", "high"))
        middle[aspect] = ((min(values) if low is None else low) + (max(values) if high is None else high)) / 2
    items = []
    for example, at, aspect, value in rated:
        candidates = example.candidates
        sign = 1.0 if known.get(aspect, {}).get("higher_is_better", True) else -1.0
        gold = {"label": sign * value, "good": sign * (value - middle[aspect]) > 0}
        subset = aspect if len(aspects) > 1 else str(example.row["subset"] or example.row["source"] or "all")
        family = f"family-{example.row['family']}"
        one = candidates.of(candidates.completions[at])
        items.append(Item(f"{subset}/{example.id}:{aspect}:{at}", subset, family, gold, one, (at,)))
    left_out = Counter({"rows without a rating": sum(not example.row["scores"] for example in examples)})
    return items, +left_out


def _values(row: Mapping[str, Any]) -> list[float | None] | None:
    """Up is better: minus the rank, else the rating of the first aspect that every response has."""
    n = len(row["responses"] or [])
    if n < 2:
        return None
    if row["ranks"]:
        return [None if rank is None else -float(rank) for rank in row["ranks"]]
    table: dict[str, dict[int, float]] = {}
    for score in row["scores"] or []:
        if score["value"] is not None:
            table.setdefault(score["aspect"] or "", {})[score["response"]] = float(score["value"])
    complete = [values for _, values in sorted(table.items()) if len(values) == n]
    return [complete[0][index] for index in range(n)] if complete else None
