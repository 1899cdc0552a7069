"""What an export says about itself, and the check that it is true.

`manifest.json` holds no clock, no path of this machine and no id of this warehouse's tables, so the same version gives
the same manifest everywhere with the same library versions. File hashes change with the Parquet writer; the digests do
not: `digest` is the version's, `rows_digest` that of the examples in this folder (they are equal when nothing was
filtered, erased or left out by the form).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rmkit.data.example import MANIFEST, read_manifest
from rmkit.errors import DataError
from rmkit.ids import file_sha256
from warehouse.sql import run
from warehouse.versions.checkout import erased
from warehouse.versions.digest import digest_rows
from warehouse.versions.versions import get, held_sources

FORMAT = 1
PARQUET = {"compression": "zstd", "compression_level": 3, "row_group_size": 16384, "version": "2.6"}
_TOP_REASONS = 20


def describe(connection: duckdb.DuckDBPyConnection, version_id: int, table: pa.Table, *, form: str) -> dict[str, Any]:
    """The manifest of a native `table` checked out from a version, before its files are written."""
    version = get(connection, version_id)
    return _origins(connection, version_id, table) | {
        "format": FORMAT,
        "dataset": version.name,
        "version": version.number,
        "ref": version.ref,
        "digest": version.digest,
        "parents": list(version.parents),
        "recipe": _parsed(version.recipe),
        "form": form,
        "n_version_rows": version.n_rows,
        "erased_rows": erased(table),
        "licenses": license_counts(table),
        "steps": _steps(connection, version_id),
        "gaps": _gaps(table),
        "writer": {name: metadata.version(name) for name in ("rmkit", "pyarrow")} | {"parquet": PARQUET},
    }


def license_counts(table: pa.Table) -> dict[str, int]:
    """License -> rows, most frequent first."""
    counted = Counter(
        {one["values"] or "unknown": one["counts"] for one in pc.value_counts(table["license"]).to_pylist()}
    )
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))


def _parsed(recipe: str | None) -> object:
    try:
        return None if recipe is None else json.loads(recipe)
    except json.JSONDecodeError:
        return recipe


def _origins(connection: duckdb.DuckDBPyConnection, version_id: int, table: pa.Table) -> dict[str, object]:
    """Sources of the exported rows in this dataset; every license that any source of a row states, and the rows that
    any source marks as benchmark: for these it does not matter into which dataset the text came.

    A row counts once per license and once per source.
    """
    connection.register("exported", table.select(["id"]))
    try:
        run(
            connection,
            "CREATE OR REPLACE TEMP TABLE origin AS SELECT e.example_id, s.*, "
            "coalesce(us.license, s.license) AS stated FROM exported x "
            "JOIN example e ON e.h = x.id::UUID JOIN unit_source us USING (unit_id) "
            "JOIN source s USING (source_id)",
        )
    finally:
        connection.unregister("exported")
    names = ("name", "format", "revision", "url", "sha256", "license", "is_benchmark", "rows")
    sources = run(
        connection,
        "SELECT name, format, revision, url, file_sha256, license, is_benchmark, count(DISTINCT example_id) "
        f"FROM origin WHERE source_id IN ({held_sources(connection, version_id)}) GROUP BY ALL ORDER BY ALL",
    )
    stated = run(connection, "SELECT stated, count(DISTINCT example_id) FROM origin GROUP BY ALL ORDER BY ALL")
    benchmark = run(connection, "SELECT count(DISTINCT example_id) FROM origin WHERE is_benchmark")
    return {
        "sources": [dict(zip(names, row, strict=True)) for row in sources],
        "label_scales": _scales(connection, version_id),
        "stated_licenses": dict(stated),
        "benchmark_rows": benchmark[0][0],
    }


def _scales(connection: duckdb.DuckDBPyConnection, version_id: int) -> list[dict[str, object]]:
    """What the numbers of the dataset's sources mean, by aspect; the aspect None is that of strengths."""
    names = ("aspect", "name", "low", "high", "levels", "higher_is_better")
    rows = run(
        connection,
        f"SELECT DISTINCT {', '.join(names)} FROM label_scale "
        f"WHERE source_id IN ({held_sources(connection, version_id)}) ORDER BY ALL",
    )
    return [dict(zip(names, row, strict=True)) for row in rows]


def _steps(connection: duckdb.DuckDBPyConnection, version_id: int) -> list[dict[str, object]]:
    """The steps of the run that made the version: rows in, kept, dropped and the most frequent reasons."""
    steps = run(
        connection,
        "SELECT step_no, step, config, n_in, n_kept, n_dropped FROM step_result "
        "WHERE run_id = (SELECT run_id FROM version WHERE version_id = ?) ORDER BY step_no",
        [version_id],
    )
    reasons = run(
        connection,
        "SELECT step_no, reason, count(*) AS n FROM step_drop "
        "WHERE run_id = (SELECT run_id FROM version WHERE version_id = ?) GROUP BY ALL "
        "ORDER BY step_no, n DESC, reason",
        [version_id],
    )
    return [
        {
            "step": step,
            "config": _parsed(config),
            "n_in": n_in,
            "n_kept": n_kept,
            "n_dropped": n_dropped,
            "reasons": dict([(reason, n) for at, reason, n in reasons if at == step_no][:_TOP_REASONS]),
        }
        for step_no, step, config, n_in, n_kept, n_dropped in steps
    ]


def _gaps(table: pa.Table) -> list[str]:
    """What a reader of the card should know is missing, in plain words with counts."""
    unlabeled = pc.and_(pc.is_null(table["p"]), pc.and_(pc.is_null(table["ranks"]), pc.is_null(table["scores"])))
    counts = {
        "rows left out because their text was erased": erased(table),
        "rows of unknown license": license_counts(table).get("unknown", 0),
        "rows without a split": table["split"].null_count,
        "rows whose authors (models or people) are not named": table["generators"].null_count,
        "rows with a single judgment behind the label": _total(pc.equal(table["n_votes"], 1)),
        "rows without preference, rank or rating": _total(pc.and_(unlabeled, pc.is_null(table["step_labels"]))),
    }
    return [f"{n} {what}" for what, n in counts.items() if n]


def _total(mask: pa.ChunkedArray) -> int:
    return pc.sum(mask).as_py() or 0


def verify_export(folder: Path) -> dict[str, object]:
    """The manifest of an export folder whose files and digests have been recomputed (needs no warehouse).

    Raises DataError naming the first file that is missing or differs, or the digest that does not match.
    """
    manifest = read_manifest(folder)
    for key in ("ref", "digest", "rows_digest", "complete"):
        if key not in manifest:
            raise DataError(f"{folder / MANIFEST}: no {key!r} in it; export the version again")
    for name, facts in manifest["files"].items():
        if not (folder / name).is_file():
            raise DataError(f"{folder}: {name} is missing; export the version again: rmkit export {manifest['ref']}")
        if (got := file_sha256(folder / name)) != facts.get("sha256"):
            stated = facts.get("sha256")
            raise DataError(f"{folder}: {name} has sha256 {got}, the manifest says {stated}; export it again")
    try:
        got = digest_rows(set(_identities(folder, manifest)))
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{folder} cannot be read as rows: {error}; export it again") from error
    if got != manifest["rows_digest"]:
        raise DataError(f"{folder}: the rows have digest {got}, the manifest says {manifest['rows_digest']}")
    if manifest["complete"] and got != manifest["digest"]:
        raise DataError(f"{folder}: the rows have digest {got}, the version {manifest['ref']} is {manifest['digest']}")
    return manifest


def _identities(folder: Path, manifest: Mapping[str, Any]) -> Iterator[tuple[str, str | None, float]]:
    for name in manifest["files"]:
        if name.endswith(".parquet"):
            yield from identities(pq.read_table(folder / name, columns=["id", "split", "weight"]))
        elif name.endswith(".jsonl"):
            with (folder / name).open(encoding="utf-8") as lines:
                for row in map(json.loads, lines):
                    yield row["id"], row["split"], row["weight"]


def identities(table: pa.Table) -> Iterator[tuple[str, str | None, float]]:
    """What the digest is made of: (example hash, split, weight) of each row."""
    return zip(*(table[name].to_pylist() for name in ("id", "split", "weight")), strict=True)
