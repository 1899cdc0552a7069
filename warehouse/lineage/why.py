"""`rmkit why ROW`: who judged it, in which screen order, who wrote it, under which license, what kept or dropped it."""

from __future__ import annotations

import uuid

import duckdb

from rmkit.cli import arguments, display
from rmkit.errors import UsageError
from warehouse.lineage.lineage_text import matches_text, row_text
from warehouse.lineage.preview import shorten, transcript
from warehouse.lineage.provenance import lineage, row_facts
from warehouse.sql import run
from warehouse.store import open_warehouse

MIN_DIGITS = 6
MAX_MATCHES = 20


def why(connection: duckdb.DuckDBPyConnection, row: str) -> dict[str, object]:
    """Everything known about a row, or {"matches": [...]} where the name fits several.

    `row` is a source's own row id, or the hex id (or 6 digits or more of it) of an example, a unit, a prompt or a
    response. A prompt or response that one unit uses stands for that unit, and a unit for all that it was rewritten
    from and into. Raises UsageError where nothing fits.
    """
    result = find(connection, row)
    if not result:
        raise UsageError(
            f"no row {row!r}: expected a source's row id, or 6 to 32 hex digits of an example, unit, prompt or "
            "response; ids stand in the column id of an export and in rmkit diff A B --rows 10"
        )
    roots = {None if unit_id is None else lineage(connection, unit_id)[0] for _, _, unit_id in result}
    if len(roots) == 1 and (root := roots.pop()) is not None:
        return {"row": row, "matched": sorted({part for part, _, _ in result})} | row_facts(connection, root)
    return {"row": row, "matches": _describe(connection, result)}


def find(connection: duckdb.DuckDBPyConnection, row: str) -> list[tuple[str, str, int | None]]:
    """(part, hex id, unit id) of all that the name fits; part is example | unit | prompt | response | source row.

    A text that several units use comes once per unit, one that no unit uses with unit id None.
    """
    hexed = "replace({}::VARCHAR, '-', '')"
    rows = run(
        connection,
        f"SELECT DISTINCT 'source row', {hexed.format('u.h')}, unit_id FROM unit_source JOIN unit u USING (unit_id) "
        "WHERE source_row = ? ORDER BY unit_id LIMIT ?",
        [row, MAX_MATCHES + 1],
    )
    digits = row.lower().replace("-", "")
    if rows or not MIN_DIGITS <= len(digits) <= 32 or set(digits) - set("0123456789abcdef"):
        return rows
    fits = "h BETWEEN $1 AND $2"
    return run(
        connection,
        f"""
        WITH part AS (
            SELECT 'example' AS part, h, unit_id FROM example WHERE {fits}
            UNION ALL SELECT 'unit', h, unit_id FROM unit WHERE {fits}
            UNION ALL SELECT 'prompt', p.h, u.unit_id FROM (FROM prompt WHERE {fits}) p
                LEFT JOIN unit u USING (prompt_id)
            UNION ALL SELECT 'response', r.h, u.unit_id FROM (FROM response WHERE {fits}) r
                LEFT JOIN (SELECT unit_id, unnest(resp_ids) AS resp_id FROM unit) u USING (resp_id)
        )
        SELECT part, {hexed.format("h")}, unit_id FROM part ORDER BY part, h, unit_id LIMIT $3""",
        [uuid.UUID(digits.ljust(32, "0")), uuid.UUID(digits.ljust(32, "f")), MAX_MATCHES + 1],
    )


def _describe(
    connection: duckdb.DuckDBPyConnection, results: list[tuple[str, str, int | None]]
) -> list[dict[str, object]]:
    about = {
        unit_id: (unit, shorten(transcript(messages), 60))
        for unit_id, unit, messages in run(
            connection,
            "SELECT unit_id, replace(u.h::VARCHAR, '-', ''), messages FROM unit u JOIN prompt USING (prompt_id) "
            "WHERE list_contains(?, unit_id)",
            [[unit_id for _, _, unit_id in results if unit_id is not None]],
        )
    }
    nothing = (None, "no unit uses it")
    described = []
    for part, h, unit_id in results:
        unit, prompt = nothing if unit_id is None else about[unit_id]
        described.append({"part": part, "id": h, "unit": unit, "prompt": prompt})
    return described


def main(argv: list[str]) -> int:
    """Entry point of `rmkit why`: 1 where the row's name fits several, which are listed."""
    parser = arguments.parser(
        "why",
        "Everything known about one row: texts and who wrote them, sources and licenses, every judgment, labels, the "
        "steps that kept or dropped it, and the versions it lives in.",
        examples=["why hh-harmless-0", "why 4df97ba1 --full", "why 4df97ba1b81c --json"],
    )
    parser.add_argument("row", metavar="ROW", help="a source's row id, or 6 or more hex digits of an id")
    parser.add_argument("--full", action="store_true", help="whole texts instead of their beginning and end")
    options = parser.parse_args(argv)
    with open_warehouse(read_only=True) as connection:
        result = why(connection, options.row)
    if "matches" in result:
        display.emit(result, as_json=options.json, text=matches_text(result, MAX_MATCHES))
        return 1
    display.emit(result, as_json=options.json, text=row_text(result, full=options.full))
    return 0
