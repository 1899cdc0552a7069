"""From answers to a dataset version."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from labeling_ui.desk.answers import Answer
from labeling_ui.desk.item_weights import read_weights
from labeling_ui.learning.rank_items import prioritize
from labeling_ui.projects.labels import commit_labels
from labeling_ui.projects.people import ForbiddenError, add_person, by_name, by_token, people, remove_person
from labeling_ui.projects.project import Added, Project, add_queued, open_project
from rmkit.errors import DataError, UsageError
from rmkit.ledger import Ledger
from rmkit.ledger.annotation_queue import enqueue, queue_item
from rmkit.models import load_model
from rmkit.types import Candidates, Completion, Message
from tests.labeling_ui.conftest import ANNA, BEN, LEA
from warehouse.store import open_warehouse
from warehouse.versions.checkout import checkout
from warehouse.versions.versions import resolve

Make = Callable[..., Project]


def test_answers_become_a_version_that_counts_each_person_once(ledger: Ledger, make_project: Make) -> None:
    """Anna prefers every right answer, Ben contradicts one; repeats and undone answers do not count."""
    project = make_project(overlap=2, repeat_share=0.4, seed=1)
    desk = project.desk(ledger)
    while held := desk.open(ANNA):
        texts = [response[-1].content for response in desk.shown(held[0])]
        desk.submit(ANNA, held[0].id, Answer(better=int(texts[1].startswith("right")), strength=3))
    with pytest.raises(ForbiddenError):
        commit_labels(ledger, project, ANNA)
    first = commit_labels(ledger, project, LEA)
    assert (first.version.ref, first.version.n_rows) == ("sums-labels@v1", 12)

    (hold,) = desk.open(BEN)
    texts = [response[-1].content for response in desk.shown(hold)]
    desk.submit(BEN, hold.id, Answer(better=int(texts[1].startswith("right"))))
    desk.undo(BEN, hold.id)
    desk.submit(BEN, hold.id, Answer(better=int(texts[1].startswith("wrong")), strength=1))
    second = commit_labels(ledger, project, LEA).version
    assert (second.ref, second.n_rows) == ("sums-labels@v2", 12)
    with open_warehouse(read_only=True) as connection:
        rows = checkout(connection, resolve(connection, second.ref)).to_pylist()
    contested = [row for row in rows if row["n_votes"] == 2]
    assert [row["p"] for row in contested] == [[0.5, 0.5]]
    for row in (row for row in rows if row["n_votes"] == 1):
        assert "right" in row["responses"][row["p"].index(1.0)]
        assert row["margin"] == 3.0
    assert commit_labels(ledger, project, LEA).version.ref == second.ref  # nothing new, no new version


def test_merged_labels_replace_those_of_the_answered_units_only(ledger: Ledger, make_project: Make) -> None:
    project = make_project()
    desk = project.desk(ledger)
    (hold,) = desk.open(ANNA)
    wrong = [response[-1].content.startswith("wrong") for response in desk.shown(hold)].index(True)
    desk.submit(ANNA, hold.id, Answer(better=wrong, strength=2))
    made = commit_labels(ledger, project, LEA, merge=True).version
    assert (made.ref, made.n_rows) == ("sums@v2", 12)
    with open_warehouse(read_only=True) as connection:
        rows = checkout(connection, resolve(connection, made.ref)).to_pylist()
    preferred = ["wrong" in row["responses"][row["p"].index(1.0)] for row in rows]
    assert sum(preferred) == 1


def test_an_edit_becomes_a_pair_that_prefers_it(ledger: Ledger, make_project: Make) -> None:
    project = make_project("edits", kind="edit", overlap=1)
    desk = project.desk(ledger)
    (hold,) = desk.open(ANNA)
    before = desk.shown(hold)[1][-1].content
    desk.submit(ANNA, hold.id, Answer(better=1, edit=before + " and why", rationale="it lacked a reason"))
    made = commit_labels(ledger, project, LEA).version
    assert (made.ref, made.n_rows) == ("edits-labels@v1", 1)
    with open_warehouse(read_only=True) as connection:
        (row,) = checkout(connection, resolve(connection, made.ref)).to_pylist()
    texts = [json.loads(text)[-1]["content"] for text in row["responses"]]
    assert set(texts) == {before, before + " and why"}
    assert row["p"][texts.index(before + " and why")] == 1.0
    assert commit_labels(ledger, project, LEA).version.ref == made.ref


def test_models_decide_what_is_seen_first(ledger: Ledger, make_project: Make) -> None:
    """The length rule is sure of every pair but those of equal length; those two come first."""
    project = make_project(seed=4)
    told = prioritize(ledger, project, "uncertainty", models=["length"])
    assert (told["items"], told["models"]) == (12, [load_model("length").info.fingerprint])
    weights = read_weights(project.folder, project.desk(ledger).items)
    assert weights is not None
    desk = project.desk(ledger)
    gaps = [abs(len(a[-1].content) - len(b[-1].content)) for a, b in (desk.items[n].responses for n in range(12))]
    assert gaps[int(weights.argmax())] == min(gaps)
    with pytest.raises(UsageError, match=r"needs 2 reward model\(s\), got 1"):
        prioritize(ledger, project, "disagreement", models=["length"])
    assert [one.event.payload["strategy"] for one in ledger.events(kinds=["label_priority"])] == ["uncertainty"]


def test_a_queued_finding_weighs_by_its_priority(ledger: Ledger, make_project: Make) -> None:
    project = make_project()
    pair = Candidates((Message("user", "Hm?"),), tuple(Completion((Message("assistant", t),)) for t in ("a", "b")))
    enqueue(ledger, [queue_item(pair, project="sums", found_by="drift m", reason="odd", priority=1.0)])
    assert read_weights(project.folder, project.desk(ledger).items) is None
    add_queued(ledger, project)
    weights = read_weights(project.folder, project.desk(ledger).items)
    assert weights is not None
    assert weights.tolist() == [1.0] * 12 + [10.0]


def test_a_project_without_answers_has_nothing_to_commit(ledger: Ledger, make_project: Make) -> None:
    with pytest.raises(DataError, match="no answers yet"):
        commit_labels(ledger, make_project(), LEA)


def test_projects_are_refused_with_what_to_do(ledger: Ledger, make_project: Make) -> None:
    make_project()
    with pytest.raises(UsageError, match="project sums exists"):
        make_project()
    with pytest.raises(UsageError, match="letters, digits"):
        make_project("../up")
    with pytest.raises(DataError, match="12 rows: not split into steps"):
        make_project("steps", kind="steps")
    with pytest.raises(UsageError, match=r"no project 'nums' \(there are: sums\)"):
        open_project(ledger, "nums")
    assert open_project(ledger, "sums").data == "sums@v1"


def test_queued_findings_become_items_once(ledger: Ledger, make_project: Make) -> None:
    project = make_project()
    pair = Candidates((Message("user", "Hm?"),), tuple(Completion((Message("assistant", t),)) for t in ("a", "b")))
    found = queue_item(pair, project="sums", found_by="drift m", reason="odd", priority=0.7, evidence={"psi": 0.3})
    other = queue_item(pair, project="elsewhere", found_by="drift m", reason="odd", priority=0.7)
    enqueue(ledger, [found, other])
    assert add_queued(ledger, project) == Added(1, {})
    assert add_queued(ledger, project) == Added(0, {})
    item = project.desk(ledger).items[12]
    assert (item.reason, item.evidence, item.responses[0][0].content) == ("odd", {"psi": 0.3}, "a")


def test_accounts_and_their_tokens(ledger: Ledger) -> None:
    token = add_person(ledger, "anna", role="annotator")
    assert by_token(ledger, token) == ANNA == by_name(ledger, "anna")
    fresh = add_person(ledger, "anna", role="lead")
    with pytest.raises(ForbiddenError, match="opens nothing"):
        by_token(ledger, token)
    assert by_token(ledger, fresh).role == "lead"
    assert [person.name for person in people(ledger)] == ["anna"]
    remove_person(ledger, "anna")
    for lookup in (lambda: by_token(ledger, fresh), lambda: by_token(ledger, ""), lambda: by_name(ledger, "anna")):
        with pytest.raises(ForbiddenError):
            lookup()
    stored = ledger.record("principal", "label/anna")
    assert stored is not None
    assert fresh not in str(stored.value)
