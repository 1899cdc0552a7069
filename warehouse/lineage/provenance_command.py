"""`rmkit provenance NAME@VERSION`: the record of every source of a version, and what is stated of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

import duckdb

from rmkit.cli import arguments, display
from rmkit.cli.verbs import Command, Verbs
from rmkit.errors import UsageError, unknown
from rmkit.ledger import open_ledger
from rmkit.user import user_name
from warehouse.lineage.source_facts import Consent, SourceFacts, read_facts, state_facts
from warehouse.sql import run
from warehouse.store import open_warehouse
from warehouse.versions.versions import get, held_sources, resolve


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRecord:
    """All that is known of one source; what nobody said is "unknown", never empty."""

    source: str
    sha256: str
    rows: int
    license: str
    url: str
    revision: str
    text_origin: str
    pii: str
    consent: str
    collected: str
    removal: str
    removed: bool
    raters: str
    is_benchmark: bool


def source_records(
    connection: duckdb.DuckDBPyConnection, version_id: int, facts: dict[str, SourceFacts]
) -> list[SourceRecord]:
    """Of the sources that a version's rows come from, by name."""
    rows = run(
        connection,
        "SELECT s.name, file_sha256, n_accepted, license, url, revision, text_origin, pii, is_benchmark, "
        "(SELECT string_agg(kind || ' ' || n, ', ' ORDER BY kind) FROM (SELECT r.kind, count(DISTINCT rater_id) AS n "
        "FROM judgment j JOIN rater r USING (rater_id) WHERE j.source_id = s.source_id GROUP BY r.kind)) "
        f"FROM source s WHERE s.source_id IN ({held_sources(connection, version_id)}) ORDER BY s.name, s.source_id",
    )
    return [
        SourceRecord(
            source=name,
            sha256=sha256,
            rows=n_rows,
            license=license,
            url=url or "unknown",
            revision=revision or "unknown",
            text_origin=text_origin,
            pii=pii,
            consent=(own := facts.get(sha256, SourceFacts())).consent,
            collected=own.collected,
            removal=own.removal,
            removed=own.removed,
            raters=raters or "none",
            is_benchmark=is_benchmark,
        )
        for name, sha256, n_rows, license, url, revision, text_origin, pii, is_benchmark, raters in rows
    ]


def _show(argv: list[str]) -> int:
    """The records of a version's sources."""
    parser = arguments.parser(
        "provenance show", "Every source of a version with all that is known of it.", examples=["provenance show hh@v2"]
    )
    parser.add_argument("ref", metavar="NAME@VERSION", help="a version, tag, branch or digest prefix")
    options = parser.parse_args(argv)
    ref, records = _records(options.ref)
    text = "\n\n".join([f"{ref}: {len(records)} sources", *(display.fields(_fields(one)) for one in records)])
    display.emit({"ref": ref, "sources": records}, as_json=options.json, text=text)
    return 0


def _state(argv: list[str]) -> int:
    """State facts of a version's sources."""
    parser = arguments.parser(
        "provenance state",
        "State what is known of the sources of a version: of all, or of those with --source. With --removed they leave "
        "in no export any more; --restored takes that back.",
        examples=[
            "provenance state hh@v2 --consent given --collected 2022-04 --removal privacy@example.org",
            "provenance state hh@v2 --source forum-dump --removed",
        ],
    )
    parser.add_argument("ref", metavar="NAME@VERSION", help="a version, tag, branch or digest prefix")
    parser.add_argument("--source", help="only the sources of this name, or whose SHA-256 begins so")
    parser.add_argument("--consent", choices=get_args(Consent), help="who agreed, or what allows it")
    parser.add_argument("--collected", metavar="DATE", help="year, month or day")
    parser.add_argument("--removal", metavar="TEXT", help="where to ask for removal")
    parser.add_argument("--removed", action="store_const", const=True, help="the source was taken back")
    parser.add_argument("--restored", dest="removed", action="store_const", const=False, help="it was not")
    options = parser.parse_args(argv)
    values = {name: getattr(options, name) for name in ("consent", "collected", "removal", "removed")}
    changes = {name: value for name, value in values.items() if value is not None}
    if not changes:
        raise UsageError("rmkit provenance state: say what is known: --consent, --collected, --removal, --removed")
    _, records = _records(options.ref)
    target = [one for one in records if not options.source or one.source == options.source or _begins(one, options)]
    if not target:
        raise UsageError(unknown("source", options.source, [one.source for one in records]))
    with open_ledger() as ledger:
        for one in target:
            state_facts(ledger, one.sha256, changes, by=user_name())
    ref, records = _records(options.ref)
    shown = [one for one in records if one.sha256 in {own.sha256 for own in target}]
    text = "\n\n".join(display.fields(_fields(one)) for one in shown)
    display.emit({"ref": ref, "sources": shown}, as_json=options.json, text=text)
    return 0


def _begins(record: SourceRecord, options: Any) -> bool:
    return len(options.source) >= 8 and record.sha256.startswith(options.source)


def _records(ref: str) -> tuple[str, list[SourceRecord]]:
    with open_ledger(read_only=True) as ledger:
        facts = read_facts(ledger)
    with open_warehouse(read_only=True) as connection:
        version_id = resolve(connection, ref)
        return get(connection, version_id).ref, source_records(connection, version_id, facts)


def _fields(record: SourceRecord) -> dict[str, object]:
    return {name: getattr(record, name) for name in SourceRecord.__dataclass_fields__}


main = Verbs(
    "provenance",
    "Where a version's rows come from, by whose leave, and what was taken back.",
    {
        "show": Command(_show, "every source with all that is known of it"),
        "state": Command(_state, "state consent, date of collection, removal"),
    },
    examples=["provenance show hh@v2", "provenance state hh@v2 --source forum-dump --removed"],
)
