"""`rmkit erase`: the text of a row goes, its hash stays, so old digests can still be proved.

Erasing an example or a unit erases its prompt and its responses, a prompt or a response only itself; wherever else the
same text is used, it is gone there too, and so are the versions of it that steps rewrote. Edits, rationales, spans and
notes about those units are erased because they quote them. The loader refuses erased text from then on.

What this command cannot reach is listed in its answer: the ledger's events, exports, step caches, backups, the source
files, and copies the file system keeps of replaced files.
"""

from __future__ import annotations

import uuid
from typing import Any

import duckdb

from rmkit.cli import arguments, display
from rmkit.errors import StoreError, UsageError
from rmkit.paths import warehouse_path
from rmkit.user import user_name
from warehouse.lineage.runs import recorded_run
from warehouse.safety.compact import rewrite_file
from warehouse.sql import run
from warehouse.store import open_warehouse, transaction

MIN_DIGITS = 8
REMAINS = (
    "events in the ledger that quote it (rmkit backup copies them too)",
    "backups and exports made before now",
    "caches of pipeline steps under $RMKIT_HOME",
    "the files it was ingested from, and reject excerpts of those files",
    "disk blocks of the replaced file until the file system reuses them",
)

# Units that share text by being rewritten from one another, both ways.
_FAMILY = """
CREATE OR REPLACE TEMP TABLE linked AS
WITH RECURSIVE kin(start_id, unit_id) AS (
    SELECT unit_id, unit_id FROM unit WHERE {start}
    UNION
    SELECT kin.start_id, other.unit_id FROM kin JOIN unit u ON u.unit_id = kin.unit_id
    JOIN unit other ON other.parent_unit_id = u.unit_id OR other.unit_id = u.parent_unit_id
)
SELECT kin.start_id, unit.unit_id, unit.prompt_id, unit.resp_ids FROM kin JOIN unit USING (unit_id)
"""

# A rewritten unit's responses cannot be told apart by position: of those that the first unit does not have, all go.
_RESPONSES = """
SELECT {resp_id}::BIGINT AS id UNION
SELECT unnest(list_filter(l.resp_ids, lambda r: NOT list_contains(s.resp_ids, r)))
FROM linked l JOIN unit s ON s.unit_id = l.start_id WHERE NOT list_contains(l.resp_ids, {resp_id})
"""


def erase(connection: duckdb.DuckDBPyConnection, row: str, *, reason: str, actor: str) -> dict[str, object]:
    """Erase the text behind a hex id (or an unambiguous prefix of 8 digits or more), in one transaction.

    Returns counts by part, the examples that lost text and the dataset versions that hold them. Raises UsageError for
    an unknown or ambiguous id.
    """
    part, key, full = find_row(connection, row)
    with (
        transaction(connection),
        recorded_run(connection, "erase", full, {"part": part, "reason": reason, "actor": actor}),
    ):
        _collect(connection, part, key)
        counts = {name: _bury(connection, name, reason=reason, actor=actor) for name in ("prompt", "response")}
        affected = _affected(connection)
        counts["judgment"] = _clear_judgments(connection, reason=reason, actor=actor)
        _clear_notes(connection)
    return {"row": full, "part": part, "erased": counts, **affected}


def find_row(connection: duckdb.DuckDBPyConnection, row: str) -> tuple[str, int, str]:
    """(table, integer id, full hex id) of an example, unit, prompt or response. Raises UsageError."""
    digits = row.lower().replace("-", "")
    if not MIN_DIGITS <= len(digits) <= 32 or set(digits) - set("0123456789abcdef"):
        raise UsageError(f"{row!r} is no row id: expected {MIN_DIGITS} to 32 hex digits, as rmkit why prints them")
    low, high = uuid.UUID(digits.ljust(32, "0")), uuid.UUID(digits.ljust(32, "f"))
    tables = {"example": "example_id", "unit": "unit_id", "prompt": "prompt_id", "response": "resp_id"}
    sql = " UNION ALL ".join(
        f"SELECT '{table}', {key}, replace(h::VARCHAR, '-', '') FROM {table} WHERE h BETWEEN $1 AND $2"
        for table, key in tables.items()
    )
    rows = run(connection, sql, [low, high])
    if not rows:
        raise UsageError(f"no example, unit, prompt or response with id {row}; rmkit why shows ids")
    if len(rows) > 1:
        names = ", ".join(f"{table} {full}" for table, _, full in rows[:5])
        raise UsageError(f"{row} is ambiguous: {names}; give more digits")
    table, key, full = rows[0]
    return table, key, full


def _collect(connection: duckdb.DuckDBPyConnection, part: str, key: int) -> None:
    """Temp tables erased_prompt and erased_response (id) of everything that must go."""
    unit = f"unit_id = {key}"
    match part:
        case "example":
            unit = f"unit_id = (SELECT unit_id FROM example WHERE example_id = {key})"
        case "prompt":
            unit = f"prompt_id = {key}"
        case "response":
            unit = f"list_contains(resp_ids, {key})"
    run(connection, _FAMILY.format(start=unit))
    prompts = "SELECT DISTINCT prompt_id AS id FROM linked"
    responses = "SELECT DISTINCT unnest(resp_ids) AS id FROM linked"
    if part == "response":
        prompts, responses = "SELECT 0::BIGINT AS id WHERE false", _RESPONSES.format(resp_id=key)
    elif part == "prompt":
        prompts, responses = f"{prompts} UNION SELECT {key}", "SELECT 0::BIGINT AS id WHERE false"
    run(connection, f"CREATE OR REPLACE TEMP TABLE erased_prompt AS {prompts}")
    run(connection, f"CREATE OR REPLACE TEMP TABLE erased_response AS {responses}")


def _bury(connection: duckdb.DuckDBPyConnection, table: str, *, reason: str, actor: str) -> int:
    key = "prompt_id" if table == "prompt" else "resp_id"
    live = f"FROM {table} WHERE messages IS NOT NULL AND {key} IN (SELECT id FROM erased_{table})"
    run(connection, f"INSERT INTO tombstone SELECT h, ?, ?, ?, now() {live}", [table, reason, actor])
    sql = f"UPDATE {table} SET messages = NULL WHERE messages IS NOT NULL AND {key} IN (SELECT id FROM erased_{table})"
    return int(run(connection, sql)[0][0])


def _affected(connection: duckdb.DuckDBPyConnection) -> dict[str, object]:
    """Units that use erased text (temp table hit), their examples, and the versions these are in."""
    run(
        connection,
        "CREATE OR REPLACE TEMP TABLE hit AS "
        "SELECT unit_id FROM unit WHERE prompt_id IN (SELECT id FROM erased_prompt) "
        "OR list_has_any(resp_ids, (SELECT coalesce(list(id), []) FROM erased_response))",
    )
    (n_units,) = run(connection, "SELECT count(*) FROM hit")[0]
    (n_examples,) = run(connection, "SELECT count(*) FROM example SEMI JOIN hit USING (unit_id)")[0]
    versions = run(
        connection,
        "SELECT DISTINCT d.name || '@v' || v.number AS ref FROM delta JOIN version v USING (version_id) "
        "JOIN dataset d USING (dataset_id) WHERE example_id IN (SELECT example_id FROM example SEMI JOIN hit USING "
        "(unit_id)) ORDER BY ref",
    )
    return {"units": n_units, "examples": n_examples, "first_in": [ref for (ref,) in versions]}


def _clear_judgments(connection: duckdb.DuckDBPyConnection, *, reason: str, actor: str) -> int:
    about = "unit_id IN (SELECT unit_id FROM hit)"
    for column in ("edit", "rationale"):
        run(
            connection,
            f"INSERT INTO tombstone SELECT DISTINCT left(sha256({column}), 32)::UUID, ?, ?, ?, now() FROM judgment "
            f"WHERE {about} AND {column} IS NOT NULL",
            [column, reason, actor],
        )
    quotes = " OR ".join(f"{column} IS NOT NULL" for column in ("edit", "rationale", "spans", "extra"))
    sql = f"UPDATE judgment SET edit = NULL, rationale = NULL, spans = NULL, extra = NULL WHERE {about} AND ({quotes})"
    return int(run(connection, sql)[0][0])


def _clear_notes(connection: duckdb.DuckDBPyConnection) -> None:
    """Tools, reference, sources' own extra fields and the evidence of dropping steps: all of it may quote the text."""
    run(
        connection,
        "UPDATE unit SET tools = NULL, reference = NULL WHERE (tools IS NOT NULL OR reference IS NOT NULL) "
        "AND unit_id IN (SELECT unit_id FROM hit)",
    )
    run(
        connection, "UPDATE unit_source SET meta = NULL WHERE meta IS NOT NULL AND unit_id IN (SELECT unit_id FROM hit)"
    )
    run(
        connection,
        "UPDATE step_drop SET evidence = NULL WHERE evidence IS NOT NULL AND example_id IN "
        "(SELECT example_id FROM example SEMI JOIN hit USING (unit_id))",
    )


def main(argv: list[str]) -> int:
    """`rmkit erase ROW --reason WHY`."""
    parser = arguments.parser(
        "erase",
        "Erase the text of an example, unit, prompt or response for good; hashes and digests stay provable.",
        examples=[
            "erase 4df97ba1 --reason 'the author asked'",
            "erase 4df97ba1b81c80a6 --reason GDPR --actor dpo --json",
        ],
    )
    parser.add_argument("row", metavar="ROW", help="hex id, or at least 8 digits of it")
    parser.add_argument("--reason", required=True, help="kept with the tombstone")
    parser.add_argument("--actor", default=None, help="who asks (default: the login name)")
    parser.add_argument(
        "--keep-file",
        action="store_true",
        help="do not rewrite the warehouse file: faster, but the text stays in its free blocks until they are reused",
    )
    args = parser.parse_args(argv)
    path = warehouse_path()
    if not path.exists():
        raise StoreError(f"no warehouse at {path}: nothing to erase (set RMKIT_HOME to where the data is)")
    with open_warehouse(path) as connection:
        result = erase(connection, args.row, reason=args.reason, actor=args.actor or user_name())
        if not args.keep_file:
            rewrite_file(connection, path)
    result |= {"file_rewritten": not args.keep_file, "remains": list(REMAINS)}
    display.emit(result, as_json=args.json, text=_text(result))
    return 0


def _text(result: dict[str, Any]) -> str:
    erased = result["erased"]
    lines = [
        f"erased {result['part']} {result['row']}: {erased['prompt']} prompts, {erased['response']} responses, "
        f"notes of {erased['judgment']} judgments",
        f"{result['examples']} examples lost their text; checkouts and exports leave them out from now on"
        + (f" (versions from {', '.join(result['first_in'])} on)" if result["first_in"] else ""),
        "the warehouse file was rewritten, the bytes are gone from it"
        if result["file_rewritten"]
        else "the warehouse file was kept: the bytes stay in its free blocks until they are reused",
        "not reached by this command:",
    ]
    return "\n".join(lines + [f"  - {place}" for place in result["remains"]])
