"""Running a converter over a dataset version: the units it gives become a version of another dataset.

Equal units from several examples become one: votes add up, and labels that differ are averaged by their votes. The run
records what every example gave nothing for, so that counts add up and `rmkit drops` lists it.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl
import pyarrow as pa

from data_pipelines.algorithms.responses import KINDS, ranks_of
from data_pipelines.converters import Derived, Example, NotConvertibleError, converter
from data_pipelines.recipes.record import record
from data_pipelines.recipes.runner import StepRun
from data_pipelines.steps import DROPPED
from rmkit.data.example import EXAMPLE_SCHEMA
from rmkit.errors import DataError
from rmkit.ids import content_hash
from warehouse.store import open_warehouse
from warehouse.versions.checkout import checkout
from warehouse.versions.versions import get, resolve
from warehouse.write.identity import unit_hash
from warehouse.write.rewrite import NEW, OTHER_PARENTS, PARENT_ORDER

_BATCH_ROWS = 4096
_FACTS = ("prompt", "reference", "rubric", "tools")


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """`rows` are ready to store; `dropped` names the examples that gave no unit, with the reason."""

    rows: pl.DataFrame
    dropped: pl.DataFrame
    n_examples: int
    n_united: int


def convert(name: str, data: str, out: str, config: Any) -> dict[str, object]:
    """The units that a converter gives for the examples of NAME@REF, as a version of dataset `out`; what the command
    prints. Raises VersionError for unknown data, DataError where no example gives a unit."""
    start = time.monotonic()
    with open_warehouse(read_only=True) as connection:
        version_id = resolve(connection, data)
        ref = get(connection, version_id).ref
        table = checkout(connection, version_id, votes="full")
    result = convert_rows(name, table, config)
    reasons = dict(result.dropped["reason"].value_counts(sort=True).iter_rows())
    if not len(result.rows):
        listed = "; ".join(f"{reason}: {n}" for reason, n in reasons.items())
        raise DataError(f"converter {name} gives no unit for the {result.n_examples} rows of {ref} ({listed})")
    step = StepRun(
        key="",
        name=name,
        config=asdict(config),
        n_in=result.n_examples,
        n_kept=result.n_examples - len(result.dropped),
        wall_s=round(time.monotonic() - start, 3),
        facts={"units": len(result.rows), "equal_units_united": result.n_united},
        dropped=result.dropped,
    )
    spec = {"converter": {"use": name, **asdict(config)}}
    return record(name, spec, [result.rows], done=[step], version_id=version_id, out=out, kind="convert")


def convert_rows(name: str, table: pa.Table, config: Any) -> Conversion:
    """The converter's units for a checkout with full votes."""
    convert_one = converter(name).convert
    units: dict[str, dict[str, Any]] = {}
    dropped: list[tuple[str, str, None]] = []
    n_united = 0
    for batch in table.to_batches(max_chunksize=_BATCH_ROWS):
        for example in batch.to_pylist():
            try:
                derived = list(convert_one(example, config))
                if not derived:
                    raise NotConvertibleError("nothing follows from it")
            except NotConvertibleError as error:
                dropped.append((example["id"], str(error), None))
                continue
            for unit in derived:
                row = _row(example, unit, method=name)
                key = row.pop("_key")
                n_united += key in units
                units[key] = _united(units[key], row) if key in units else row
    schema = EXAMPLE_SCHEMA.append(PARENT_ORDER).append(OTHER_PARENTS)
    rows = pa.Table.from_pylist(list(units.values()), schema=schema)
    return Conversion(
        rows=pl.DataFrame(pl.from_arrow(rows)),
        dropped=pl.DataFrame(dropped, schema=DROPPED, orient="row"),
        n_examples=table.num_rows,
        n_united=n_united,
    )


def _row(example: Example, unit: Derived, *, method: str) -> dict[str, Any]:
    """The row of a derived unit, responses in stored order; `_key` is what makes two of them the same unit."""
    n = len(unit.responses)
    if n != len(unit.origins):
        raise DataError(f"converter {method}: {n} responses and {len(unit.origins)} origins; a bug in the converter")
    order = sorted(range(n), key=lambda at: content_hash(unit.responses[at]))
    place = {old: new for new, old in enumerate(order)}

    def sorted_(values: Sequence[Any] | None) -> list[object] | None:
        return None if values is None else [values[at] for at in order]

    known = example["generators"]
    stated = unit.generators or [None] * n
    writers = [
        stated[at] if origin is None else known[origin] if known else None for at, origin in enumerate(unit.origins)
    ]
    facts = {name: getattr(unit, name) if getattr(unit, name) is not None else example[name] for name in _FACTS}
    kind = unit.kind or KINDS.get(n, "list" if n else "rubric")
    scores = [{"response": place[at], "aspect": aspect, "value": value} for at, aspect, value in unit.scores]
    row = {name: example[name] for name in ("id", "unit", "source", "subset", "license", "family", "split")}
    row |= facts | {
        "kind": kind,
        "responses": sorted_(unit.responses),
        "generators": sorted_(writers) if any(writers) else None,
        "step_ends": sorted_(unit.step_ends),
        "other_parents": [],
        "parent_order": [NEW if unit.origins[at] is None else unit.origins[at] for at in order],
        "p": sorted_(unit.p),
        "ranks": sorted_(unit.ranks),
        "margin": unit.margin,
        "scores": sorted(scores, key=lambda one: (one["response"], one["aspect"])) or None,
        "step_labels": None if unit.step_labels is None else list(unit.step_labels),
        "n_votes": unit.n_votes,
        "method": method,
        "weight": example["weight"] if unit.weight == 1 else unit.weight * (example["weight"] or 1.0),
        "meta": _meta(example["meta"], unit.meta),
    }
    about = {name: facts[name] for name in ("rubric", "tools", "reference")}
    row["_key"] = unit_hash(kind, facts["prompt"], responses=row["responses"], step_ends=row["step_ends"], **about)
    return row


def _meta(own: str | None, more: Mapping[str, Any]) -> str | None:
    return own if not more else json.dumps({**json.loads(own or "{}"), **more}, ensure_ascii=False)


def _united(first: dict[str, Any], other: Mapping[str, Any]) -> dict[str, object]:
    """One row for two of the same unit: votes add up, labels are averaged by them, and both parents are named."""
    votes = [first["n_votes"], other["n_votes"]]
    parents = [*first["other_parents"], other["unit"]]
    label: dict[str, Any] = {"n_votes": sum(votes), "other_parents": [one for one in parents if one != first["unit"]]}
    if first["p"] != other["p"] and first["p"] is not None and other["p"] is not None:
        weights = [max(n, 1) for n in votes]
        both = zip(first["p"], other["p"], strict=True)
        p = [round((one * weights[0] + two * weights[1]) / sum(weights), 9) for one, two in both]
        label |= {"p": p, "ranks": ranks_of(p), "margin": None}
    if first["scores"] != other["scores"]:
        label["scores"] = _mean_scores([*(first["scores"] or ()), *(other["scores"] or ())])
    return first | label


def _mean_scores(scores: Sequence[Mapping[str, Any]]) -> list[dict[str, object]]:
    total: Counter[tuple[int, str]] = Counter()
    many: Counter[tuple[int, str]] = Counter()
    for one in scores:
        key = (one["response"], one["aspect"])
        total[key] += one["value"]
        many[key] += 1
    return [{"response": at, "aspect": name, "value": total[at, name] / many[at, name]} for at, name in sorted(many)]
