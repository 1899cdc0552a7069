"""Pairs in bulk: tables with prompt, chosen and rejected become units without a Python loop over rows.

Only plain rows are taken: texts, or lists of {role, content} turns in canonical roles, that are surely neither empty
nor equal. Every other row is handed back for row-by-row reading, where each fault gets its own reason; so the rules of
what is usable stand in one place, the importer, and this file only has to be sure where it says yes.
"""

from __future__ import annotations

import contextlib

import duckdb
import pyarrow as pa

from rmkit.types import ROLES
from warehouse.sql import registered
from warehouse.write.units import UNIT_SCHEMA

TEXTS = ("prompt", "chosen", "rejected")
PASSED_ON = ("source_row", "subset", "split", "license", "meta")  # optional columns, text already
_INK = r"[\p{L}\p{N}!-~]"  # one letter, digit or ASCII sign proves that a text is not blank

_JUDGMENT = """
{'rater': ?::VARCHAR, 'rater_kind': ?::VARCHAR, 'ranks': [0, 1]::INTEGER[], 'shown_order': NULL::INTEGER[],
 'column_order': NULL::INTEGER[], 'strength': NULL::DOUBLE,
 'scores': NULL::STRUCT(response INTEGER, aspect VARCHAR, "value" DOUBLE)[], 'step_labels': NULL::DOUBLE[],
 'edit': NULL::VARCHAR, 'rationale': NULL::VARCHAR, 'confidence': NULL::DOUBLE, 'active_ms': NULL::BIGINT,
 'time': NULL::TIMESTAMPTZ, 'extra': NULL::VARCHAR}
"""


def pair_units(
    table: pa.Table,
    *,
    rater: str,
    rater_kind: str = "unknown",
    connection: duckdb.DuckDBPyConnection | None = None,
) -> tuple[pa.Table, pa.Table]:
    """(units, rest): UNIT_SCHEMA rows of the plain pairs, in order, and the rows of `table` that are not plain.

    `table` has the columns line (int64, unique), prompt, chosen, rejected, and any of PASSED_ON. The chosen response
    stands first and has won one judgment of `rater`. Columns of another type, or text that is not UTF-8, leave every
    row in rest. Some tens of thousands of rows at a time keep memory low and two cores busy; whoever brings many tables
    keeps one `connection` (to any database) for all of them, since opening one costs a tenth of such a table.
    """
    if not all(_readable(table.schema.field(name).type) for name in TEXTS) or not _valid(table):
        return UNIT_SCHEMA.empty_table(), table
    with contextlib.ExitStack() as stack:
        connection = connection or stack.enter_context(duckdb.connect(":memory:"))
        with registered(connection, "rows", table):
            units = connection.sql(_units(table), params=[rater, rater_kind]).to_arrow_table()
    return units.cast(UNIT_SCHEMA), table.filter(pa.compute.invert(pa.compute.is_in(table["line"], units["line"])))


def _units(table: pa.Table) -> str:
    canonical = ", ".join(f"{_canonical(name, table.schema.field(name).type)} AS {name}" for name in TEXTS)
    passed_on = ", ".join(f"{name if name in table.column_names else 'NULL'}::VARCHAR AS {name}" for name in PASSED_ON)
    nothing = "'generator': NULL::VARCHAR, 'step_ends': NULL::INTEGER[]"
    return f"""
    WITH read AS (SELECT line, {canonical}, {passed_on} FROM rows)
    SELECT line, source_row, 'pair' AS kind, prompt,
        [{{'messages': chosen, {nothing}}}, {{'messages': rejected, {nothing}}}] AS responses,
        [{_JUDGMENT}] AS judgments, NULL::VARCHAR AS rubric, NULL::VARCHAR AS tools,
        NULL::VARCHAR AS reference, subset, split, license, meta
    FROM read WHERE prompt IS NOT NULL AND chosen <> rejected
    """


def _readable(kind: pa.DataType) -> bool:
    if _is_text(kind):
        return True
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not pa.types.is_struct(kind.value_type):
        return False
    turn = kind.value_type
    return sorted(field.name for field in turn) == ["content", "role"] and all(_is_text(field.type) for field in turn)


def _is_text(kind: pa.DataType) -> bool:
    return kind in (pa.string(), pa.large_string(), pa.string_view())


def _valid(table: pa.Table) -> bool:
    try:
        table.validate(full=True)  # checks UTF-8, which Parquet readers do not
    except pa.ArrowInvalid:
        return False
    return True


def _canonical(name: str, kind: pa.DataType) -> str:
    """SQL for the canonical JSON of a column, null where the row is not surely usable."""
    role = "user" if name == "prompt" else "assistant"
    if _is_text(kind):
        written = f"""'[{{"content":' || to_json({name}) || ',"role":"{role}"}}]'"""
        return f"CASE WHEN regexp_matches({name}, '{_INK}') THEN {written} END"
    known = ROLES if role == "user" else ("assistant", "tool")
    odd = f"list_filter({name}, lambda m: (m.content IS NOT NULL AND m.role IN {known}) IS NOT TRUE)"
    if role == "user":
        spoken = (
            f"{name}[-1].role IN ('user', 'tool') AND regexp_matches({name}[-1].content, '{_INK}') "
            f"AND len(list_filter({name}, lambda m: m.role = 'user')) > 0"
        )
    else:
        inked = f"m.role = 'assistant' AND regexp_matches(m.content, '{_INK}')"
        spoken = f"{name}[1].role = 'assistant' AND len(list_filter({name}, lambda m: {inked})) > 0"
    written = f"to_json(list_transform({name}, lambda m: {{'content': m.content, 'role': m.role}}))::VARCHAR"
    return f"CASE WHEN len({odd}) = 0 AND {spoken} THEN {written} END"
