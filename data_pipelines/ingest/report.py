"""What `rmkit ingest` prints: which column became what and why, counts, and the rejected rows it can list
afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import duckdb

from data_pipelines.ingest.inputs import Opened
from data_pipelines.ingest.rows import UnitStream
from data_pipelines.sources import all_sources, paths
from data_pipelines.sources.unit_builder import Row
from rmkit.cli import display
from rmkit.errors import UsageError
from warehouse.store import open_warehouse
from warehouse.write.load import LoadReport

SAMPLE_CHARACTERS = 32
MAX_META = 12


@dataclass(frozen=True)
class Played:
    """A column, the role that it plays, why, and a value of it."""

    column: str
    role: str
    why: str
    sample: str


@dataclass(frozen=True)
class Explanation:
    """How a load is read: its form and what each column became."""

    path: str
    form: str
    forced: bool
    columns: Sequence[Played]
    notes: Sequence[str]
    shards: int


def explanation(opened: Opened) -> Explanation:
    """The table of a load, from its first shard."""
    plan = opened.shards[0].plan
    sample = list(opened.sample)
    names = list(dict.fromkeys(column for row in sample for column in row))
    played: list[Played] = []
    used: set[str] = set()
    if plan.form is not None:
        for role, text in plan.form.roles.items():
            path = paths.parse(text)
            used |= set(path.columns)
            value = next(
                (v for row in sample if (v := paths.value_at(row, path)) not in (paths.MISSING, None, "")), None
            )
            played.append(Played(text.removesuffix("?"), role, plan.why.get(role, "the form"), _short(value)))
        used |= set(plan.form.wide)
        if plan.form.wide:
            played.append(
                Played(", ".join(plan.form.wide), "label of a rater each", "--wide", _first(sample, plan.form.wide[0]))
            )
    else:
        played.append(Played(", ".join(names[:MAX_META]), "as the form says", "the form's own reader", ""))
        used |= set(names)
    rest = [name for name in names if name not in used]
    played += [Played(name, "meta", "", _first(sample, name)) for name in rest[:MAX_META]]
    if len(rest) > MAX_META:
        played.append(Played(f"{len(rest) - MAX_META} more columns", "meta", "", ""))
    if plan.parsed:
        opened.notes.append(f"JSON text read as what it holds: {', '.join(plan.parsed)}")
    if (
        plan.form is not None
        and plan.form.implicit
        and "prompt" not in plan.form.roles
        and "talk" not in plan.form.roles
    ):
        opened.notes.append("prompt = what both replies begin with: no column is one")
    opened.notes.extend(plan.notes)
    if plan.is_benchmark:
        opened.notes.append(f"{plan.name} is a benchmark: its rows are kept out of training")
    if plan.form is not None and plan.form.wide and "rater" in plan.form.roles:
        opened.notes.append("the row names its rater: the columns of --wide are criteria, each a score")
    forms = list(dict.fromkeys(shard.plan.name for shard in opened.shards))
    return Explanation(opened.path, " + ".join(forms), plan.forced, played, opened.notes, len(opened.shards))


def _first(sample: Sequence[Row], name: str) -> str:
    return _short(next((row[name] for row in sample if row.get(name) not in (None, "")), None))


def _short(value: Any) -> str:
    if value is None:
        return ""
    text = " ".join(str(value).split())
    return text if len(text) <= SAMPLE_CHARACTERS else text[: SAMPLE_CHARACTERS - 3] + "..."


def table_text(table: Explanation) -> str:
    """The table for a person."""
    rows = [(one.column, one.role, one.why, one.sample) for one in table.columns]
    several = f", {table.shards} files" if table.shards > 1 else ""
    head = f"{table.path}: form {table.form} ({'as you said' if table.forced else 'detected'}{several})"
    notes = "".join(f"\n  note: {note}" for note in table.notes)
    return f"{head}\n{display.table(('column', 'became', 'why', 'sample'), rows, indent='  ')}{notes}"


def rejects(connection: duckdb.DuckDBPyConnection, dataset: str) -> list[dict[str, Any]]:
    """Rejected rows of everything that was ever read into a dataset: path, line, source_row, reason, excerpt; also of
    files of which no row was stored.

    Raises UsageError where nothing was read.
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


def show_rejects(dataset: str, *, as_json: bool) -> int:
    """`rmkit ingest --rejects`."""
    with open_warehouse(read_only=True) as connection:
        rows = rejects(connection, dataset)
    text = "\n".join(f"{row['path']}:{row['line']}: {row['reason']}: {row['excerpt'] or ''}" for row in rows)
    display.emit({"rejects": rows}, as_json=as_json, text=text or f"{dataset}: no rejected rows")
    return 0


def show_forms(*, as_json: bool) -> int:
    """`rmkit ingest --forms`."""
    rows = [(source.name, source.about) for source in all_sources()]
    forms = [{"form": name, "about": about} for name, about in rows]
    display.emit({"forms": forms}, as_json=as_json, text=display.table(("form", "rows"), rows))
    return 0


def summary(
    report: LoadReport, opened: Opened | None, stream: UnitStream | None, table: Explanation | None
) -> dict[str, Any]:
    """What one load did, as the command prints it."""
    with open_warehouse(read_only=True) as connection:
        ((path, format_, license_, benchmark),) = connection.execute(
            "SELECT path, format, license, is_benchmark FROM source WHERE source_id = ?", [report.source_id]
        ).fetchall()
        reasons = connection.execute(
            "SELECT reason, count(*) FROM reject WHERE source_id = ? GROUP BY 1 ORDER BY 2 DESC, 1", [report.source_id]
        ).fetchall()
    facts = {
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
    if stream is not None and not report.already_loaded:
        facts |= {
            "labels": dict(stream.tally.votes),
            "judgments": stream.tally.judgments,
            "raters": stream.tally.rater_kinds(),
            "without_opinion": sum(one.without_opinion for one in stream.shards.values()),
        }
        if len(stream.shards) > 1:
            facts["shards"] = {name: asdict(counts) for name, counts in stream.shards.items()}
    if table is not None:
        facts["reading"] = asdict(table)
    return facts


def as_text(s: Mapping[str, Any]) -> str:
    """The summary for a person."""
    if s["already_ingested"]:
        return f"{s['path']}: already ingested, nothing changed; it is {s['version']} ({s['rows']:,} rows)"
    labels = " | ".join(f"{name} {count:,}" for name, count in sorted(s["labels"].items())) or "none"
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(s["raters"].items())) or "none"
    lines = [
        f"  rows     {s['rows']:,} = {s['accepted']:,} accepted + {s['rejected']:,} rejected",
        *(f"             {count:,} x {reason}" for reason, count in s["reasons"].items()),
        *(
            f"             {one['rows']:,} in {name}, {one['rejected']:,} rejected"
            for name, one in s.get("shards", {}).items()
        ),
        f"  units    {s['units']:,}, of them {s['new_units']:,} new to the warehouse; "
        f"{s['repeated_units']:,} repeated in the file",
        f"  labels   {labels} (of {s['judgments']:,} judgments)",
        f"  raters   {kinds}{' (--rater-kind says what they are)' if 'unknown' in s['raters'] else ''}",
        f"  no opinion  {s['without_opinion']:,} rows",
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


def next_commands(s: Mapping[str, Any]) -> str:
    """What to type now."""
    lines = [] if s["benchmark"] else [f"rmkit run clean --data {s['version']}"]
    lines += [f"rmkit datasets {s['dataset']}"]
    lines += [f"rmkit ingest --rejects {s['dataset']}"] if s["rejected"] else []
    return "next: " + "\n      ".join(lines)
