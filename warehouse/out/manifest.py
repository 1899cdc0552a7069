"""What an export says about itself, and the check that it is true.

`manifest.json` holds no clock, no path of this machine and no id of this warehouse's tables, so the same version gives
the same manifest everywhere with the same library versions. File hashes change with the Parquet writer; the digests do
not: `digest` is the version's, `rows_digest` that of the examples in this folder (they are equal when nothing was
filtered, erased or left out by the form).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from rmkit.data.example import MANIFEST, read_manifest
from rmkit.errors import DataError
from rmkit.ids import file_sha256
from warehouse.out.forms import WEIGHTLESS
from warehouse.sql import run
from warehouse.versions.checkout import VISIBLE, sources_sql
from warehouse.versions.digest import digest_pieces
from warehouse.versions.stream import PIECE_ROWS
from warehouse.versions.versions import get, held_sources, members

FORMAT = 1
PARQUET = {"compression": "zstd", "compression_level": 3, "row_group_size": PIECE_ROWS, "version": "2.6"}
_TOP_REASONS = 20


def select_rows(
    connection: duckdb.DuckDBPyConnection, version_id: int, *, split: str | None = None, removed: Sequence[str] = ()
) -> tuple[int, int]:
    """Fill the temp table `exported` with the rows of a version, or of a split, that may leave the warehouse, and what
    a manifest counts of them. Left out are rows whose text was erased, and of which any source is one of the files
    `removed` (their SHA-256): the counts of both."""
    held = members(connection, version_id)
    run(
        connection,
        f"""CREATE OR REPLACE TEMP TABLE exported AS
        WITH s AS ({sources_sql(held_sources(connection, version_id))})
        SELECT e.example_id, unit_id, e.h, m.split, m.weight, s.license, s.gen_ids IS NULL AS unnamed, e.n_votes,
        e.p IS NULL AND e.ranks IS NULL AND e.scores IS NULL AND e.step_labels IS NULL AS unlabeled
        FROM {held} m JOIN example e USING (example_id) JOIN unit u USING (unit_id) JOIN prompt p USING (prompt_id)
        LEFT JOIN s USING (unit_id) WHERE {VISIBLE}""",
        {"split": split},
    )
    counted = f"SELECT (SELECT count(*) FROM {held} m WHERE $split IS NULL OR m.split = $split), count(*) FROM exported"
    [(n_members, n_visible)] = run(connection, counted, {"split": split})
    gone = run(
        connection,
        f"DELETE FROM exported WHERE unit_id IN ({_FROM_FILES}) RETURNING 1",
        {"files": list(removed)},
    )
    return n_members - n_visible, len(gone)


_FROM_FILES = "SELECT unit_id FROM unit_source JOIN source USING (source_id) WHERE list_contains($files, file_sha256)"


def rows_of_files(connection: duckdb.DuckDBPyConnection, files: Sequence[str]) -> int:
    """How many of the rows of `exported` come from any of these files (their SHA-256), whatever else they come from."""
    [(n,)] = run(connection, f"SELECT count(*) FROM exported WHERE unit_id IN ({_FROM_FILES})", {"files": list(files)})
    return int(n)


def describe(
    connection: duckdb.DuckDBPyConnection,
    version_id: int,
    *,
    form: str = "native",
    split: str | None = None,
    removed: Sequence[str] = (),
) -> dict[str, Any]:
    """The manifest of an export before its files are written; leaves the rows in `exported` (see `select_rows`)."""
    version = get(connection, version_id)
    n_erased, n_removed = select_rows(connection, version_id, split=split, removed=removed)
    licenses = license_counts(connection)
    return _origins(connection, version_id) | {
        "format": FORMAT,
        "dataset": version.name,
        "version": version.number,
        "ref": version.ref,
        "digest": version.digest,
        "parents": list(version.parents),
        "recipe": _parsed(version.recipe),
        "form": form,
        "n_version_rows": version.n_rows,
        "erased_rows": n_erased,
        "removed_rows": n_removed,
        "licenses": licenses,
        "steps": _steps(connection, version_id),
        "gaps": _gaps(connection, n_erased, licenses),
        "writer": {name: metadata.version(name) for name in ("rmkit", "pyarrow")} | {"parquet": PARQUET},
    }


def license_counts(connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """License -> rows of `exported`, most frequent first."""
    query = "SELECT coalesce(nullif(license, ''), 'unknown') AS name, count(*) AS n FROM exported GROUP BY ALL"
    return dict(run(connection, f"{query} ORDER BY n DESC, name"))


def _parsed(recipe: str | None) -> object:
    try:
        return None if recipe is None else json.loads(recipe)
    except json.JSONDecodeError:
        return recipe


def _origins(connection: duckdb.DuckDBPyConnection, version_id: int) -> dict[str, object]:
    """Sources of the exported rows in this dataset; every license that any source of a row states, and the rows that
    any source marks as benchmark: for these it does not matter into which dataset the text came.

    A row counts once per license and once per source.
    """
    origin = (
        "(SELECT x.example_id, s.*, coalesce(us.license, s.license) AS stated FROM exported x "
        "JOIN unit_source us USING (unit_id) JOIN source s USING (source_id)) AS origin"
    )
    names = ("name", "format", "revision", "url", "sha256", "license", "is_benchmark", "rows")
    sources = run(
        connection,
        "SELECT name, format, revision, url, file_sha256, license, is_benchmark, count(DISTINCT example_id) "
        f"FROM {origin} WHERE source_id IN ({held_sources(connection, version_id)}) GROUP BY ALL ORDER BY ALL",
    )
    stated = run(connection, f"SELECT stated, count(DISTINCT example_id) FROM {origin} GROUP BY ALL ORDER BY ALL")
    benchmark = run(connection, f"SELECT count(DISTINCT example_id) FROM {origin} WHERE is_benchmark")
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


def _gaps(connection: duckdb.DuckDBPyConnection, n_erased: int, licenses: Mapping[str, int]) -> list[str]:
    """What a reader of the card should know is missing, in plain words with counts."""
    query = (
        "SELECT count(*) FILTER (split IS NULL), count(*) FILTER (unnamed), count(*) FILTER (n_votes = 1), "
        "count(*) FILTER (unlabeled) FROM exported"
    )
    [(unsplit, unnamed, single, unlabeled)] = run(connection, query)
    counts = {
        "rows left out because their text was erased": n_erased,
        "rows of unknown license": licenses.get("unknown", 0),
        "rows without a split": unsplit,
        "rows whose authors (models or people) are not named": unnamed,
        "rows with a single judgment behind the label": single,
        "rows without preference, rank or rating": unlabeled,
    }
    return [f"{n} {what}" for what, n in counts.items() if n]


def verify_export(folder: Path) -> dict[str, object]:
    """The manifest of an export folder whose files and digests have been recomputed (needs no warehouse).

    Of the WEIGHTLESS forms only the files are. Raises DataError naming the first file that is missing or differs, or
    the digest that does not match.
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
        weightless = manifest.get("form") in WEIGHTLESS
        got = manifest["rows_digest"] if weightless else digest_pieces(_identities(folder, manifest))
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{folder} cannot be read as rows: {error}; export it again") from error
    if got != manifest["rows_digest"]:
        raise DataError(f"{folder}: the rows have digest {got}, the manifest says {manifest['rows_digest']}")
    if manifest["complete"] and got != manifest["digest"]:
        raise DataError(f"{folder}: the rows have digest {got}, the version {manifest['ref']} is {manifest['digest']}")
    return manifest


def _identities(folder: Path, manifest: Mapping[str, Any]) -> Iterator[pa.Table]:
    """What the digest is made of, some thousand rows at a time: example hash, split and weight."""
    schema = pa.schema([("id", pa.string()), ("split", pa.string()), ("weight", pa.float64())])
    for name in manifest["files"]:
        if name.endswith(".parquet"):
            for batch in pq.ParquetFile(folder / name).iter_batches(PIECE_ROWS, columns=schema.names):
                yield pa.Table.from_batches([batch]).cast(schema)
        elif name.endswith(".jsonl"):
            with (folder / name).open(encoding="utf-8") as lines:
                while some := list(itertools.islice(lines, PIECE_ROWS)):
                    rows = [{key: row[key] for key in schema.names} for row in map(json.loads, some)]
                    yield pa.Table.from_pylist(rows, schema=schema)
