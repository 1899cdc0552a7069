"""Texts that were queued and never ingested: a project of them alone, and answers that reach a dataset version."""

from __future__ import annotations

import json

import pytest

from labeling_ui.desk.answers import Answer
from labeling_ui.projects.definition import TaskDefinition
from labeling_ui.projects.labels import commit_labels
from labeling_ui.projects.project import create_project
from rmkit.errors import DataError
from rmkit.ids import content_hash, messages_json
from rmkit.ledger import Ledger
from rmkit.ledger.annotation_queue import enqueue, queue_item
from rmkit.types import Candidates, Completion, Message
from tests.labeling_ui.conftest import ANNA, LEA
from warehouse.lineage.why import why
from warehouse.store import open_warehouse
from warehouse.versions.checkout import checkout
from warehouse.versions.versions import resolve


def queued(ledger: Ledger, project: str, prompt: str, *texts: str) -> None:
    replies = tuple(Completion((Message("assistant", text),)) for text in texts)
    item = Candidates((Message("user", prompt),), replies)
    enqueue(ledger, [queue_item(item, project=project, found_by="drift m", reason="odd", priority=0.5)])


def task(kind: str) -> TaskDefinition:
    return TaskDefinition(name=kind, kind=kind, title="T", question="Q?", overlap=1, quiz=(), repeat_share=0.0)  # type: ignore[arg-type]


def test_a_project_of_what_is_queued_for_it_alone(ledger: Ledger, pairs: str) -> None:
    with pytest.raises(DataError, match="nothing is queued for project odd; rmkit drift --queue"):
        create_project(ledger, "odd", task=task("pairwise"), data=pairs, queued=True)
    queued(ledger, "other", "New?", "a", "b")
    with pytest.raises(DataError, match=r"nothing is queued for project odd; findings wait for: other \(1\)"):
        create_project(ledger, "odd", task=task("pairwise"), data=pairs, queued=True)
    with pytest.raises(DataError, match=r"no finding queued for other fits the task.*2 responses"):
        create_project(ledger, "other", task=task("reaction"), data=pairs, queued=True)
    project = create_project(ledger, "other", task=task("pairwise"), data=pairs, queued=True)
    assert project.desk(ledger).progress()["items"] == 1


@pytest.mark.parametrize("swapped", [False, True])
def test_a_vote_on_a_queued_pair_is_read_in_the_order_of_its_unit(ledger: Ledger, pairs: str, swapped: bool) -> None:
    """A unit holds its responses by content hash, a finding in whatever order it came."""
    texts = sorted(("good", "bad"), key=lambda text: content_hash(messages_json((Message("assistant", text),))))
    queued(ledger, "odd", "New?", *(texts[::-1] if swapped else texts))
    project = create_project(ledger, "odd", task=task("pairwise"), data=pairs, queued=True)
    desk = project.desk(ledger)
    (hold,) = desk.open(ANNA)
    shown = [response[-1].content for response in desk.shown(hold)]
    desk.submit(ANNA, hold.id, Answer(better=shown.index("good"), strength=1))
    version = commit_labels(ledger, project, LEA).version
    with open_warehouse(read_only=True) as connection:
        (row,) = checkout(connection, resolve(connection, version.ref)).to_pylist()
    texts = [json.loads(text)[-1]["content"] for text in row["responses"]]
    assert texts[row["p"].index(1.0)] == "good"


def test_a_correction_leads_back_to_what_was_odd(ledger: Ledger, pairs: str) -> None:
    queued(ledger, "odd", "What is 2 + 2?", "so so 5")
    project = create_project(ledger, "odd", task=task("edit"), data=pairs, queued=True)
    desk = project.desk(ledger)
    (hold,) = desk.open(ANNA)
    desk.submit(ANNA, hold.id, Answer(better=0, edit="4"))
    version = commit_labels(ledger, project, LEA).version
    with open_warehouse(read_only=True) as connection:
        (row,) = checkout(connection, resolve(connection, version.ref)).to_pylist()
        meta = json.loads(row["meta"])
        assert meta["edited_by"] == "anna"
        sources = why(connection, meta["edited_unit"])["sources"]
    assert json.loads(sources[0]["meta"]) == {"found_by": "drift m", "reason": "odd"}  # type: ignore[index]
    assert commit_labels(ledger, project, LEA).version.ref == version.ref


def test_what_a_person_edits_twice_to_be_measured_counts_once(ledger: Ledger, pairs: str) -> None:
    for n in range(12):
        queued(ledger, "odd", f"What is {n} + {n}?", "so so")
    measured = TaskDefinition(name="e", kind="edit", title="T", question="Q?", overlap=1, quiz=(), repeat_share=0.4)
    project = create_project(ledger, "odd", task=measured, data=pairs, queued=True)
    desk = project.desk(ledger)
    answers = 0
    while held := desk.open(ANNA):
        answers += 1
        desk.submit(ANNA, held[0].id, Answer(better=0, edit=f"answer {answers}"))
    assert answers > 12
    assert commit_labels(ledger, project, LEA).version.n_rows == 12
