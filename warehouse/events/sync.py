"""Merging the ledger into the warehouse: `rmkit sync`.

Events of the kinds judgment, edit and reaction become rows of `judgment` (payload keys: warehouse.events.payloads).
Events of other kinds are counted and stay where they are. An event that cannot be merged (an unknown unit, a faulty
payload) goes to `event_reject` with its reason and is tried again by every later sync, so ingesting the missing file is
the cure.

Each batch is one short transaction that holds rows, rejects and the cursor, and a row whose event_id is known is not
inserted again: a kill, a repeat or a rewound cursor changes nothing. The cursor names the event at its seq; where the
ledger has another event there (another ledger, or an older copy of it), merging starts over from the first event.
A superseded judgment stays; its successor's `supersedes` marks it.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace

import duckdb

from rmkit.cli import arguments, display
from rmkit.ledger import Ledger, Recorded, open_ledger
from warehouse.events.event_rows import classify_events, store, store_rejects
from warehouse.events.payloads import KINDS
from warehouse.sql import run
from warehouse.store import open_warehouse, transaction

BATCH = 10_000  # events per transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncReport:
    """What one sync did.

    n_events were read: n_merged became judgments, n_known already were, n_rejected could not be. n_recovered earlier
    rejects became judgments; n_waiting rejects are in the warehouse now. `ignored` counts events of other kinds.
    The warehouse now stands at `cursor`, `behind` events before the ledger's end.
    """

    n_events: int = 0
    n_merged: int = 0
    n_known: int = 0
    n_rejected: int = 0
    n_recovered: int = 0
    n_waiting: int = 0
    ignored: dict[str, int] = field(default_factory=dict)
    cursor: int = 0
    behind: int = 0
    wall_s: float = 0.0


def sync(
    connection: duckdb.DuckDBPyConnection, ledger: Ledger, *, batch: int = BATCH, max_batches: int | None = None
) -> SyncReport:
    """Merge what is new, at most `max_batches` transactions of it; once level, try earlier rejects again.

    Every event that was committed when the call began is merged or in `event_reject` when `behind` is 0.
    """
    began = time.monotonic()
    cursor = start = _cursor(connection, ledger)
    end = ledger.last_seq()
    counts: Counter[str] = Counter()
    ignored: Counter[str] = Counter()
    n_batches = 0
    while cursor < end and (max_batches is None or n_batches < max_batches):
        records = [record for record in ledger.events(cursor, kinds=KINDS, limit=batch) if record.seq <= end]
        up_to = records[-1].seq if len(records) == batch else end
        ignored.update({kind: n for kind, n in ledger.counts(cursor, up_to).items() if kind not in KINDS})
        counts += _merge(connection, ledger, records, up_to=up_to)
        cursor, n_batches = up_to, n_batches + 1
    recovered = _retry(connection, ledger, before=start) if cursor == end else 0
    [(n_waiting,)] = run(connection, "SELECT count(*) FROM event_reject")
    return SyncReport(
        **counts,
        n_events=counts.total(),
        n_recovered=recovered,
        n_waiting=n_waiting,
        ignored=dict(ignored),
        cursor=cursor,
        behind=end - cursor,
        wall_s=time.monotonic() - began,
    )


def _cursor(connection: duckdb.DuckDBPyConnection, ledger: Ledger) -> int:
    """The seq up to which this ledger is merged: 0 where the cursor's event is not the ledger's."""
    for seq, event_id in run(connection, "SELECT seq, event_id FROM sync_cursor"):
        if _event_at(ledger, seq) == event_id:
            return int(seq)
    return 0


def _event_at(ledger: Ledger, seq: int) -> uuid.UUID | None:
    return next((record.event.id for record in ledger.events(seq - 1, limit=1) if record.seq == seq), None)


def _retry(connection: duckdb.DuckDBPyConnection, ledger: Ledger, *, before: int) -> int:
    """Number of rejects up to seq `before` that could be merged now."""
    ids = [event_id for (event_id,) in run(connection, "SELECT event_id FROM event_reject WHERE seq <= ?", [before])]
    counts = (_merge(connection, ledger, ledger.get(ids[i : i + BATCH]), up_to=None) for i in range(0, len(ids), BATCH))
    return sum(count["n_merged"] + count["n_known"] for count in counts)


def _merge(
    connection: duckdb.DuckDBPyConnection, ledger: Ledger, records: Sequence[Recorded], *, up_to: int | None
) -> Counter[str]:
    """One transaction: rows, rejects, and the cursor where one is given."""
    merged, rejected = classify_events(connection, records)
    with transaction(connection):
        n_new = store(connection, merged, ledger.where)
        store_rejects(connection, merged, rejected)
        if up_to is not None:
            run(connection, "DELETE FROM sync_cursor")
            run(connection, "INSERT INTO sync_cursor VALUES (?, ?)", [up_to, _event_at(ledger, up_to)])
    return Counter(n_merged=n_new, n_known=len(merged) - n_new, n_rejected=len(rejected))


def main(argv: list[str]) -> int:
    """`rmkit sync`."""
    parser = arguments.parser(
        "sync",
        "Merge the ledger's events (votes, edits, reactions) into the warehouse.",
        examples=["sync", "sync --json"],
    )
    options = parser.parse_args(argv)
    with open_ledger() as ledger, display.progress("merging", ledger.last_seq()) as advance:
        report = _sync_in_turns(ledger, advance)
    display.emit(asdict(report), as_json=options.json, text=_text(report, ledger.where))
    return 0


def _sync_in_turns(ledger: Ledger, advance: Callable[[float], None]) -> SyncReport:
    """Sync, letting go of the warehouse between batches so that others get their turn."""
    parts: list[SyncReport] = []
    while not parts or parts[-1].behind:
        with open_warehouse() as connection:
            parts.append(sync(connection, ledger, max_batches=1))
        advance(parts[-1].cursor - (parts[-2].cursor if len(parts) > 1 else 0))
    last = parts[-1]
    summed = ("n_events", "n_merged", "n_known", "n_rejected", "n_recovered", "wall_s")
    return replace(
        last,
        ignored=dict(sum((Counter(part.ignored) for part in parts), Counter())),
        **{name: sum(getattr(part, name) for part in parts) for name in summed},
    )


def _text(report: SyncReport, where: str) -> str:
    lines = [
        f"{report.n_merged} judgments merged from {where} in {report.wall_s:.2f} s"
        + (f", {report.n_recovered} of them rejected before" if report.n_recovered else "")
    ]
    if report.ignored:
        kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(report.ignored.items()))
        lines.append(f"left in the ledger (not judgments): {kinds}")
    if report.n_waiting:
        lines.append(
            f"{report.n_waiting} events wait in event_reject; each sync tries them again "
            "(an unknown unit needs its file: rmkit ingest FILE; one that was queued: rmkit label add PROJECT)"
        )
    return "\n".join(lines)
