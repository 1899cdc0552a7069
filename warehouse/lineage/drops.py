"""`rmkit drops NAME@V`: the rows that the run behind a version dropped, by which step and why."""

from __future__ import annotations

import uuid
from dataclasses import asdict, dataclass

import duckdb

from rmkit.cli import arguments, display
from rmkit.errors import UsageError, unknown
from warehouse.lineage.preview import shorten, transcript
from warehouse.sql import run
from warehouse.store import open_warehouse
from warehouse.versions.versions import get, resolve


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """How many rows a step dropped for one reason."""

    step: str
    reason: str
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """One dropped row: `id` is its example, `row` the source's own id of it, `prompt` how that begins and ends."""

    step: str
    reason: str
    evidence: str | None
    id: str
    row: str | None
    prompt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Drops:
    """What the run behind a version dropped; `rows` are at most as many as were asked for, `n` are all that fit."""

    version: str
    made_by: str
    n: int
    counts: tuple[Count, ...]
    rows: tuple[Drop, ...]


def drops(
    connection: duckdb.DuckDBPyConnection,
    version_id: int,
    *,
    step: str | None = None,
    reason: str | None = None,
    limit: int = 20,
) -> Drops:
    """The dropped rows of the run that made a version. Raises UsageError where that run had no steps, or no such step
    or reason."""
    ref = get(connection, version_id).ref
    run_id, made_by = _run_of(connection, version_id, ref)
    steps = dict(run(connection, "SELECT step_no, step FROM step_result WHERE run_id = ? ORDER BY step_no", [run_id]))
    counted = run(
        connection,
        "SELECT step_no, reason, count(*) FROM step_drop WHERE run_id = ? GROUP BY ALL ORDER BY 1, 3 DESC, 2",
        [run_id],
    )
    if step is not None and step not in steps.values():
        raise UsageError(unknown(f"step of {made_by}", step, sorted(set(steps.values()))))
    if reason is not None and reason not in {row[1] for row in counted}:
        known = sorted({row[1] for row in counted})
        raise UsageError(unknown(f"reason of {made_by}", reason, known) if known else f"{ref}: nothing was dropped")
    counts = [
        Count(step=steps[number], reason=why, rows=n)
        for number, why, n in counted
        if step in (None, steps[number]) and reason in (None, why)
    ]
    numbers = [number for number, name in steps.items() if step in (None, name)]
    rows = run(
        connection,
        "SELECT step_no, reason, evidence, replace(e.h::VARCHAR, '-', ''), (SELECT arg_min(source_row, line) "
        "FROM unit_source WHERE unit_id = e.unit_id), p.messages FROM step_drop d JOIN example e USING (example_id) "
        "JOIN unit u USING (unit_id) JOIN prompt p USING (prompt_id) WHERE d.run_id = $1 "
        "AND list_contains($2, step_no) AND ($3 IS NULL OR reason = $3) ORDER BY step_no, reason, example_id LIMIT $4",
        [run_id, numbers, reason, limit],
    )
    listed = tuple(
        Drop(step=steps[at], reason=why, evidence=evidence, id=h, row=row, prompt=shorten(transcript(messages), 70))
        for at, why, evidence, h, row, messages in rows
    )
    n = sum(count.rows for count in counts)
    return Drops(version=ref, made_by=made_by, n=n, counts=tuple(counts), rows=listed)


def _run_of(connection: duckdb.DuckDBPyConnection, version_id: int, ref: str) -> tuple[uuid.UUID, str]:
    """The last finished run with steps that ended in this version, and what it is called."""
    rows = run(
        connection,
        "SELECT r.run_id, r.kind || ' ' || r.name FROM run r JOIN run_io io USING (run_id) WHERE direction = 'out' "
        "AND version_id = ? AND status = 'done' AND run_id IN (SELECT run_id FROM step_result) "
        "ORDER BY finished_at DESC LIMIT 1",
        [version_id],
    )
    if not rows:
        raise UsageError(
            f"{ref} was not made by a recipe or a converter, so no step dropped anything; "
            f"rows that a file could not give are listed by: rmkit ingest --rejects {ref.partition('@')[0]}"
        )
    return rows[0][0], rows[0][1]


def main(argv: list[str]) -> int:
    """Entry point of `rmkit drops`."""
    parser = arguments.parser(
        "drops",
        "The rows that the recipe or converter behind a version dropped, by step and reason.",
        examples=["drops hh@v2", 'drops hh@v2 --step quality --reason "too long" --limit 200', "drops hh --json"],
    )
    parser.add_argument("ref", metavar="NAME@VERSION", help="a version that a recipe or a converter made")
    parser.add_argument("--step", help="only drops of this step")
    parser.add_argument("--reason", help="only drops for this reason")
    parser.add_limit(20, help="show at most N rows")
    options = parser.parse_args(argv)
    with open_warehouse(read_only=True) as connection:
        version_id = resolve(connection, options.ref)
        result = drops(connection, version_id, step=options.step, reason=options.reason, limit=options.limit)
    display.emit(asdict(result), as_json=options.json, text=_text(result))
    return 0


def _text(result: Drops) -> str:
    head = f"{result.version}, made by {result.made_by}: {result.n} rows dropped"
    if not result.n:
        return head
    counts = display.table(("step", "reason", "rows"), [(one.step, one.reason, one.rows) for one in result.counts])
    rows = display.table(
        ("step", "reason", "id", "row", "evidence", "prompt"),
        [(one.step, one.reason, one.id[:12], one.row or "", one.evidence or "", one.prompt) for one in result.rows],
    )
    more = f"{result.n - len(result.rows)} more: --limit {result.n}" if result.n > len(result.rows) else ""
    return "\n".join(filter(None, [head, counts, "", rows, more, "all about one: rmkit why ID"]))
