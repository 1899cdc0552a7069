"""Everything the warehouse knows about one unit: the facts behind `rmkit why`.

A handful of scans over narrow columns, none of which reads more text than the unit's own.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Sequence
from typing import Any

import duckdb

from warehouse.sql import run

_HEX = "replace({}::VARCHAR, '-', '')"


def row_facts(connection: duckdb.DuckDBPyConnection, unit_id: int) -> dict[str, object]:
    """Everything about the row that a unit belongs to, with all units it was rewritten from and into.

    `units` holds texts, writers, judgments and labels of each, the ingested one first; sources, runs, versions,
    tombstones, scores and benchmark items are the row's. Responses are numbered from 1 within each unit, in the stored
    order (by content hash).
    """
    unit_ids = lineage(connection, unit_id)
    units = [_unit(connection, one) for one in unit_ids]
    labels = [label for unit in units for label in unit["labels"]]
    example_ids = [label.pop("example_id") for label in labels]
    sources = _sources(connection, unit_ids[:1])
    versions = memberships(connection, example_ids)
    hashes = [h for unit in units for h in (unit["prompt_hash"], *(one["id"] for one in unit["responses"]))]
    items = [*(unit["unit"] for unit in units), *(label["id"] for label in labels), *(s["row"] for s in sources)]
    return {
        "units": units,
        "sources": sources,
        "runs": _runs(connection, example_ids, versions),
        "versions": versions,
        "erased": _tombstones(connection, hashes),
        "scores": _scores(connection, unit_ids),
        "benchmarks": _benchmark_items(connection, [item for item in items if item]),
    }


def lineage(connection: duckdb.DuckDBPyConnection, unit_id: int) -> list[int]:
    """The unit as it was ingested and all that steps rewrote it into, oldest first."""
    root = unit_id
    while (parent := run(connection, "SELECT parent_unit_id FROM unit WHERE unit_id = ?", [root])[0][0]) is not None:
        root = parent
    result, newest = [root], [root]
    while newest:
        query = "SELECT unit_id FROM unit WHERE list_contains(?, parent_unit_id) ORDER BY unit_id"
        newest = [child for (child,) in run(connection, query, [newest])]
        result += newest
    return result


def _unit(connection: duckdb.DuckDBPyConnection, unit_id: int) -> dict[str, Any]:
    unit = _rows(
        connection,
        f"SELECT {_HEX.format('u.h')} AS unit, u.kind, u.resp_ids, u.step_ends, u.tools, u.reference, "
        f"{_HEX.format('parent.h')} AS rewritten_from, {_HEX.format('p.h')} AS prompt_hash, "
        "p.messages AS prompt, p.family_id AS family, "
        "rubric.criteria AS rubric FROM unit u JOIN prompt p ON p.prompt_id = u.prompt_id "
        "LEFT JOIN rubric ON rubric.rubric_id = u.rubric_id LEFT JOIN unit parent ON parent.unit_id = u.parent_unit_id "
        "WHERE u.unit_id = ?",
        [unit_id],
    )[0]
    responses = _responses(connection, unit.pop("resp_ids"), _sources(connection, [unit_id]))
    judgments, labels = _judgments(connection, unit_id), _labels(connection, unit_id)
    return unit | {"responses": responses, "judgments": judgments, "labels": labels}


def _rows(
    connection: duckdb.DuckDBPyConnection, query: str, parameters: Sequence[Any] | None = None
) -> list[dict[str, Any]]:
    result = connection.execute(query, parameters or [])
    names = [column[0] for column in result.description or ()]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def _responses(
    connection: duckdb.DuckDBPyConnection, resp_ids: Sequence[int], sources: Sequence[dict[str, Any]]
) -> list[dict[str, object]]:
    rows = _rows(
        connection,
        f"SELECT resp_id, {_HEX.format('h')} AS id, messages FROM response WHERE list_contains(?, resp_id)",
        [list(resp_ids)],
    )
    by_id = {row.pop("resp_id"): row for row in rows}
    models = {row.pop("gen_id"): row for row in _rows(connection, "SELECT * FROM generator")}
    results = []
    for number, resp_id in enumerate(resp_ids):
        writers = {source["gen_ids"][number]: source["source"] for source in sources if source["gen_ids"]}
        named = [models[gen] | {"according_to": source} for gen, source in writers.items() if gen in models]
        results.append({"number": number + 1} | by_id[resp_id] | {"writers": named})
    return results


def _sources(connection: duckdb.DuckDBPyConnection, unit_ids: Sequence[int]) -> list[dict[str, object]]:
    return _rows(
        connection,
        "SELECT s.name AS source, us.line, us.source_row AS row, us.subset, us.split, "
        "coalesce(us.license, s.license) AS license, s.license_notes, s.url, s.revision, s.path, "
        "s.file_sha256 AS sha256, s.format, s.is_benchmark, s.text_origin, s.pii, s.run_id, s.fetched_at, us.gen_ids, "
        "us.meta, (SELECT coalesce(list(struct_pack(aspect, name, low, high, levels, higher_is_better)), []) "
        "FROM label_scale WHERE source_id = s.source_id) AS scales FROM unit_source us JOIN source s USING (source_id) "
        "WHERE list_contains(?, us.unit_id) ORDER BY us.source_id, line",
        [list(unit_ids)],
    )


def _judgments(connection: duckdb.DuckDBPyConnection, unit_id: int) -> list[dict[str, object]]:
    """Oldest first; each names the event that replaced it, wherever that stands."""
    return _rows(
        connection,
        'SELECT j.event_id AS event, r.name AS rater, r.kind AS rater_kind, j."time", j.verdict, '
        "list_transform(j.shown_order, lambda i: i + 1) AS shown_order, j.ranks, j.strength, "
        "list_transform(j.scores, lambda s: {'response': s.response + 1, 'aspect': s.aspect, 'value': s.\"value\"}) "
        "AS scores, j.step_labels, j.rationale, j.edit, j.spans, j.confidence, j.active_ms, j.wall_ms, "
        "j.suggestion_seen, j.is_gold, j.propensity, j.supersedes, newer.event_id AS superseded_by, "
        "list_sort(list_distinct(list_filter(list_prepend(s.name, (SELECT coalesce(list(again.name), []) "
        "FROM judgment_source JOIN source again USING (source_id) WHERE event_id = j.event_id)), "
        "lambda name: name IS NOT NULL))) AS sources, j.run_id, j.extra "
        "FROM judgment j JOIN rater r USING (rater_id) LEFT JOIN source s ON s.source_id = j.source_id "
        "LEFT JOIN judgment newer ON newer.supersedes = j.event_id "
        'WHERE j.unit_id = ? ORDER BY j."time", j.event_id',
        [unit_id],
    )


def _labels(connection: duckdb.DuckDBPyConnection, unit_id: int) -> list[dict[str, object]]:
    return _rows(
        connection,
        f"SELECT example_id, {_HEX.format('h')} AS id, method, p, ranks, margin, scores, step_labels, n_votes "
        "FROM example WHERE unit_id = ? ORDER BY example_id",
        [unit_id],
    )


def memberships(connection: duckdb.DuckDBPyConnection, example_ids: Collection[int]) -> list[dict[str, object]]:
    """The versions that hold any of the examples: ref, digest, example hash, split, weight, branches and tags there."""
    words = run(
        connection,
        "SELECT example_id, version_id, op, split, weight FROM delta WHERE list_contains(?, example_id)",
        [list(example_ids)],
    )
    hashes = dict(
        run(
            connection,
            f"SELECT example_id, {_HEX.format('h')} FROM example WHERE list_contains(?, example_id)",
            [list(example_ids)],
        )
    )
    versions = _rows(
        connection,
        "SELECT v.version_id, v.parents, d.name || '@v' || v.number AS ref, v.digest, v.run_id, v.created_at, "
        "(SELECT coalesce(list(name ORDER BY name), []) FROM branch b WHERE b.version_id = v.version_id) AS branches, "
        "(SELECT coalesce(list(name ORDER BY name), []) FROM tag t WHERE t.version_id = v.version_id) AS tags "
        "FROM version v JOIN dataset d USING (dataset_id) ORDER BY v.version_id",
    )
    settings = {(example_id, version_id): state for example_id, version_id, *state in words}
    results = []
    for example_id in sorted(example_ids):
        state: dict[int, Any] = {}
        for version in versions:  # parents come before their children
            key, parents = version["version_id"], version["parents"]
            state[key] = settings.get((example_id, key), state.get(parents[0]) if parents else None)
            if state[key] is not None and state[key][0] >= 0:
                facts = {name: value for name, value in version.items() if name not in ("version_id", "parents")}
                results.append(facts | {"example": hashes[example_id], "split": state[key][1], "weight": state[key][2]})
    return results


def _runs(
    connection: duckdb.DuckDBPyConnection, example_ids: Collection[int], versions: Sequence[dict[str, Any]]
) -> list[dict[str, object]]:
    """Runs that dropped one of the examples, or made a version that holds one; each step with what it did."""
    drops = _rows(
        connection,
        f"SELECT run_id, step_no, {_HEX.format('e.h')} AS example, reason, evidence FROM step_drop "
        "JOIN example e USING (example_id) WHERE list_contains(?, example_id)",
        [list(example_ids)],
    )
    committed = {version["run_id"] for version in versions if version["run_id"] is not None}
    targets = sorted({drop["run_id"] for drop in drops} | committed)
    runs = _rows(
        connection,
        "SELECT run_id, kind, name, status, started_at, git_sha FROM run WHERE list_contains(?, run_id) "
        "ORDER BY started_at",
        [targets],
    )
    steps = _rows(
        connection,
        "SELECT run_id, step_no, step, config FROM step_result WHERE list_contains(?, run_id) ORDER BY step_no",
        [targets],
    )
    for one in runs:
        one["steps"] = [
            _step(
                step, [drop for drop in drops if (drop["run_id"], drop["step_no"]) == (one["run_id"], step["step_no"])]
            )
            for step in steps
            if step["run_id"] == one["run_id"]
        ]
        one["kept"] = one["run_id"] in committed
    return runs


def _step(step: dict[str, Any], drops: Sequence[dict[str, Any]]) -> dict[str, object]:
    dropped = [{key: drop[key] for key in ("example", "reason", "evidence")} for drop in drops]
    return {"step_no": step["step_no"], "step": step["step"], "config": json.loads(step["config"]), "dropped": dropped}


def _tombstones(connection: duckdb.DuckDBPyConnection, hashes: Sequence[str]) -> list[dict[str, object]]:
    return _rows(
        connection,
        f'SELECT {_HEX.format("h")} AS id, part, reason, actor, "time" FROM tombstone WHERE list_contains(?, h) '
        'ORDER BY "time"',
        [[uuid.UUID(h) for h in hashes]],
    )


def _scores(connection: duckdb.DuckDBPyConnection, unit_ids: Sequence[int]) -> list[dict[str, object]]:
    return _rows(
        connection,
        f"SELECT {_HEX.format('u.h')} AS unit, list_position(u.resp_ids, s.resp_id) AS response, s.fingerprint, "
        's."value", s.std, s.unscored, s.run_id, run.name AS run FROM score s '
        "JOIN (FROM unit WHERE list_contains(?, unit_id)) u ON s.prompt_id = u.prompt_id "
        "AND list_contains(u.resp_ids, s.resp_id) LEFT JOIN run USING (run_id) ORDER BY unit, fingerprint, response",
        [list(unit_ids)],
    )


_DATASET_ITEM = "([0-9a-f]{32})(?::[0-9]+:[0-9]+)?$"  # SUBSET/EXAMPLE, with positions where the row is a list


def _benchmark_items(connection: duckdb.DuckDBPyConnection, items: Sequence[str]) -> list[dict[str, object]]:
    return _rows(
        connection,
        "SELECT suite, item, fingerprint, scores, p_first, unscored, run_id FROM eval_item "
        "WHERE list_contains(?, item) OR list_contains(?, regexp_extract(item, ?, 1)) ORDER BY suite, fingerprint",
        [list(items), list(items), _DATASET_ITEM],
    )
