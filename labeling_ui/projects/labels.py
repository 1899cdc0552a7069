"""From a project's answers to a dataset version, when the lead says so.

The answers are merged from the ledger first. Every valid answer to an item counts once (known items and repeats are for
measuring people and do not), and the label of a unit is derived as everywhere else: shares, mean ranks, mean ratings.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from labeling_ui.projects.findings import store_findings
from labeling_ui.projects.live_pairs import live_pairs
from labeling_ui.projects.people import Person
from labeling_ui.projects.project import Project, projects
from rmkit.errors import DataError
from rmkit.ids import canonical_json, digest
from rmkit.ledger import Ledger
from rmkit.types import DatasetVersion
from warehouse.events.sync import SyncReport, sync
from warehouse.lineage.runs import recorded_run
from warehouse.sql import run
from warehouse.store import open_warehouse, transaction
from warehouse.versions.versions import commit, members, resolve
from warehouse.write.derive import derive_labels
from warehouse.write.judgments import VOTES
from warehouse.write.load import SourceInfo, load_units
from warehouse.write.units import JUDGMENT_STRUCT, REJECT_SCHEMA, UNIT_SCHEMA

# Repeats and known items have slots that are no numbers. What an adjudication decided stands for all votes on its unit.
_ANSWERS = """
INSERT INTO vote
WITH answer AS (
    SELECT *, list_contains(?::VARCHAR[], extra ->> '$.project') AS is_decision FROM judgment
    WHERE verdict = 'ok' AND (extra ->> '$.project' = ? OR is_decision)
    AND try_cast(extra ->> '$.slot' AS INTEGER) IS NOT NULL
    AND event_id NOT IN (SELECT supersedes FROM judgment WHERE supersedes IS NOT NULL))
SELECT unit_id, event_id, rater_id, "time", ranks, strength, scores, step_labels, edit FROM answer
WHERE is_decision OR unit_id NOT IN (SELECT unit_id FROM answer WHERE is_decision)
"""

_MEMBERS = """
CREATE OR REPLACE TEMP TABLE member AS
SELECT v.unit_id, any_value(m.split) AS split FROM (SELECT DISTINCT unit_id FROM vote) v
LEFT JOIN example e USING (unit_id) LEFT JOIN {members} m USING (example_id) GROUP BY v.unit_id
"""


@dataclass(frozen=True, slots=True)
class Committed:
    """The new version, and what was merged from the ledger on the way."""

    version: DatasetVersion
    merged: SyncReport


_EDITS = """
SELECT event_id, rater.name, p.messages, r.messages, edit, rationale, replace(u.h::VARCHAR, '-', '')
FROM judgment j JOIN rater USING (rater_id) JOIN unit u USING (unit_id) JOIN prompt p USING (prompt_id)
JOIN response r ON r.resp_id = u.resp_ids[1 + CAST(extra ->> '$.edited' AS INTEGER)]
WHERE verdict = 'ok' AND edit IS NOT NULL AND extra ->> '$.project' = ?
AND try_cast(extra ->> '$.slot' AS INTEGER) IS NOT NULL
AND p.messages IS NOT NULL AND r.messages IS NOT NULL
AND event_id NOT IN (SELECT supersedes FROM judgment WHERE supersedes IS NOT NULL)
ORDER BY event_id
"""

# The project's data as it was, but for the units that now have an answer.
_REST = """
CREATE OR REPLACE TEMP TABLE merged_rows AS
FROM {labeled} UNION ALL BY NAME
SELECT m.example_id, m.split, m.weight FROM {members} m JOIN example e USING (example_id)
WHERE e.unit_id NOT IN (SELECT unit_id FROM member)
"""


def commit_labels(
    ledger: Ledger, project: Project, lead: Person, *, dataset: str | None = None, merge: bool = False
) -> Committed:
    """A new version of `dataset` (default PROJECT-labels) holding every unit with an answer of this project.

    `merge` makes it a version of the project's own data instead (unless `dataset` names another): all its rows, those
    with an answer under their new label. Splits are those of the project's data. A pair that an adjudication of this
    project has decided is labeled by that decision alone. Raises ForbiddenError for an
    annotator, DataError where nothing is answered. An edit task gives new pairs: each edit beside what it started from;
    so do live chats: both replies to each message.
    """
    lead.require("lead", "commit labels")
    store_findings(ledger, project.name, author=lead.name)
    with open_warehouse() as connection:
        merged = sync(connection, ledger)
        if project.task.kind == "edit":
            return Committed(_commit_edits(connection, project, lead, dataset or f"{project.name}-labels"), merged)
        if project.task.kind == "live":
            pairs = live_pairs(ledger, project.name)
            return Committed(_new_pairs(connection, project, lead, dataset or f"{project.name}-labels", pairs), merged)
        own = project.data.partition("@")[0] if merge else f"{project.name}-labels"
        decisions = [one.name for one in projects(ledger) if one.source == project.name]
        return Committed(_commit(connection, project, lead, dataset or own, merge=merge, decisions=decisions), merged)


def _commit_edits(
    connection: duckdb.DuckDBPyConnection, project: Project, lead: Person, dataset: str
) -> DatasetVersion:
    """Every valid edit as a pair of its own: the edit is better than the response it started from."""
    rows = connection.execute(_EDITS, [project.name]).fetchall()
    return _new_pairs(
        connection, project, lead, dataset, [_edit_pair(line, *row) for line, row in enumerate(rows, start=1)]
    )


def _new_pairs(
    connection: duckdb.DuckDBPyConnection, project: Project, lead: Person, dataset: str, units: list[dict[str, object]]
) -> DatasetVersion:
    """Pairs whose texts were written in this project, as rows in UNIT_SCHEMA."""
    if not units:
        raise DataError(f"project {project.name} has no {project.task.kind} pairs yet; annotate: rmkit label serve")
    source = SourceInfo(
        name=f"label-{project.name}",
        path=f"project {project.name}",
        format="labels",
        file_sha256=digest([str(unit["source_row"]) for unit in units]),
        text_origin="mixed",
    )
    report = load_units(
        connection,
        source,
        [pa.RecordBatch.from_pylist(units, schema=UNIT_SCHEMA)],
        rejects=lambda: pa.Table.from_pylist([], schema=REJECT_SCHEMA),
        dataset=dataset,
        author=lead.name,
        n_lines=lambda: len(units),
    )
    assert report.version is not None
    return report.version


def _edit_pair(
    line: int, event: uuid.UUID, rater: str, prompt: str, before: str, after: str, why: str | None, edited: str
) -> dict[str, object]:
    blank = {field.name: None for field in JUDGMENT_STRUCT}
    judged = blank | {"rater": rater, "rater_kind": "human", "ranks": [1, 0], "rationale": why}
    responses = [{"messages": text, "generator": None, "step_ends": None} for text in (before, after)]
    unit = {"line": line, "source_row": str(event), "kind": "pair", "prompt": prompt, "responses": responses}
    return unit | {"judgments": [judged], "meta": canonical_json({"edited_by": rater, "edited_unit": edited})}


def _commit(
    connection: duckdb.DuckDBPyConnection,
    project: Project,
    lead: Person,
    dataset: str,
    *,
    merge: bool,
    decisions: list[str],
) -> DatasetVersion:
    with transaction(connection):
        source = resolve(connection, project.data)
        with recorded_run(
            connection, "label", project.name, {"data": project.digest, "task": project.task.id}
        ) as run_id:
            run(connection, VOTES)
            run(connection, _ANSWERS, [decisions, project.name])
            if not run(connection, "SELECT 1 FROM vote LIMIT 1"):
                raise DataError(f"project {project.name} has no answers yet; annotate first: rmkit label serve")
            inputs = members(connection, source)
            run(connection, _MEMBERS.format(members=inputs))
            rows = derive_labels(connection)
            if merge:
                run(connection, _REST.format(labeled=rows, members=inputs))
                rows = "merged_rows"
            return commit(
                connection,
                dataset,
                rows,
                message=f"labels of project {project.name} on {project.data}",
                author=lead.name,
                parents=[source],
                run_id=run_id,
            )
