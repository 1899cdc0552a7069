"""What `rmkit ingest` prints about a load, and the rejected rows it can list afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import duckdb

from rmkit.errors import UsageError
from warehouse.store import open_warehouse
from warehouse.write.load import LoadReport


def rejects(connection: duckdb.DuckDBPyConnection, dataset: str) -> list[dict[str, Any]]:
    """Rejected rows of everything that was ever ingested into a dataset: path, line, source_row, reason, excerpt.

    Raises UsageError where nothing was.
    """
    if not connection.execute("SELECT 1 FROM run WHERE kind = 'ingest' AND name = ?", [dataset]).fetchall():
        raise UsageError(f"nothing was ingested into a dataset {dataset!r}; rmkit datasets lists them")
    columns = ("path", "line", "source_row", "reason", "excerpt")
    rows = connection.execute(
        f"SELECT {', '.join(columns)} FROM reject JOIN source USING (source_id) JOIN run USING (run_id) "
        "WHERE run.name = ? AND run.kind = 'ingest' ORDER BY source_id, line",
        [dataset],
    ).fetchall()
    return [dict(zip(columns, row, strict=True)) for row in rows]


def summary(report: LoadReport, path: str) -> dict[str, Any]:
    """What one load did, as the command prints it."""
    with open_warehouse(read_only=True) as connection:
        ((format_, license_, benchmark),) = connection.execute(
            "SELECT format, license, is_benchmark FROM source WHERE source_id = ?", [report.source_id]
        ).fetchall()
        reasons = connection.execute(
            "SELECT reason, count(*) FROM reject WHERE source_id = ? GROUP BY 1 ORDER BY 2 DESC, 1", [report.source_id]
        ).fetchall()
    return {
        "path": path,
        "format": format_,
        "license": license_,
        "benchmark": benchmark,
        "dataset": report.dataset,
        "version": report.version.ref if report.version else None,
        "rows": report.n_lines,
        "accepted": report.n_accepted,
        "rejected": report.n_rejected,
        "reasons": dict(reasons),
        "units": report.n_units,
        "new_units": report.n_new_units,
        "repeated_units": report.n_duplicate_units,
        "replaced_judgments": report.n_replaced_judgments,
        "repeated_judgments": report.n_repeated_judgments,
        "already_ingested": report.already_loaded,
    }


def as_text(s: Mapping[str, Any], *, forced: bool) -> str:
    """The summary for a person."""
    if s["already_ingested"]:
        return f"{s['path']}: already ingested, nothing changed; it is {s['version']} ({s['rows']:,} rows)"
    lines = [
        f"{s['path']}: format {s['format']} ({'forced' if forced else 'detected'})",
        f"  rows     {s['rows']:,} = {s['accepted']:,} accepted + {s['rejected']:,} rejected",
        *(f"             {count:,} x {reason}" for reason, count in s["reasons"].items()),
        f"  units    {s['units']:,}, of them {s['new_units']:,} new to the warehouse; "
        f"{s['repeated_units']:,} repeated in the file",
        *([f"  answers  {n:,} replaced by a later one of the same rater"] if (n := s["replaced_judgments"]) else []),
        *(
            [f"  answers  {n:,} more of a rater who answered before; both count, no time says which is newer"]
            if (n := s["repeated_judgments"])
            else []
        ),
        f"  dataset  {s['version']}{' (benchmark: never trained on)' if s['benchmark'] else ''}",
        f"  license  {s['license']}{' (--license SPDX states it)' if s['license'] == 'unknown' else ''}",
    ]
    return "\n".join(lines)


def next_commands(summaries: Sequence[Mapping[str, Any]]) -> str:
    """What to type now."""
    last = summaries[-1]
    lines = [] if last["benchmark"] else [f"rmkit run clean --data {last['version']}"]
    lines += [f"rmkit datasets {last['dataset']}"]
    lines += [f"rmkit ingest --rejects {s['dataset']}" for s in summaries if s["rejected"]]
    return "next: " + "\n      ".join(lines)
