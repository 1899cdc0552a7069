"""Who takes part in a project, and projects of what people disagree on."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from labeling_ui.desk.answers import Answer
from labeling_ui.projects.definition import read_definition
from labeling_ui.projects.disputes import create_adjudication
from labeling_ui.projects.members import add_member, members, remove_member
from labeling_ui.projects.people import ForbiddenError, add_person
from labeling_ui.projects.project import Project, create_project
from labeling_ui.web.evidence import votes_on
from rmkit.errors import DataError, UsageError
from rmkit.ledger import Ledger
from tests.labeling_ui.conftest import ANNA, BEN, CARA, LEA
from warehouse.store import open_warehouse

Make = Callable[..., Project]


def test_the_first_member_closes_a_project_to_all_others_but_leads(ledger: Ledger, make_project: Make) -> None:
    desk = make_project().desk(ledger)
    assert desk.open(BEN)
    with pytest.raises(ForbiddenError, match="no account for 'anna'"):
        add_member(ledger, "sums", "anna")
    add_person(ledger, "anna", role="annotator")
    add_member(ledger, "sums", "anna")
    assert members(ledger, "sums") == {"anna": "annotator"}
    assert desk.open(ANNA)
    assert desk.open(LEA)
    with pytest.raises(ForbiddenError, match="ben is no member of sums"):
        desk.open(BEN)
    remove_member(ledger, "sums", "anna")
    assert desk.open(BEN)
    with pytest.raises(UsageError, match="'anna' is no member"):
        remove_member(ledger, "sums", "anna")


def test_adjudication_holds_what_people_disagree_on_and_is_for_adjudicators(ledger: Ledger, make_project: Make) -> None:
    """All twelve items were in it, for everybody, with each vote by name."""
    project = make_project(overlap=2, repeat_share=0.0)
    desk = project.desk(ledger)
    for person in (ANNA, BEN):
        for turn in range(12):
            (hold,) = desk.open(person)
            right = [text[-1].content.startswith("right") for text in desk.shown(hold)].index(True)
            wrong = person is BEN and hold.item in (3, 7)
            desk.submit(person, hold.id, Answer(better=1 - right if wrong else right, strength=1 + turn % 2))
    with pytest.raises(ForbiddenError, match="may not create a project"):
        create_adjudication(ledger, project, ANNA)
    disputes = create_adjudication(ledger, project, LEA)
    assert disputes.name == "sums-disputes"
    decide = disputes.desk(ledger)
    assert [item.unit for item in map(decide.items.__getitem__, range(len(decide.items)))] == [
        desk.items[3].unit, desk.items[7].unit
    ]  # fmt: skip
    for person in (ANNA, CARA):
        with pytest.raises(ForbiddenError, match="is no adjudicator of sums-disputes"):
            decide.open(person)
    add_person(ledger, "cara", role="annotator")
    add_member(ledger, disputes.name, "cara")
    with pytest.raises(ForbiddenError, match="is no adjudicator"):
        decide.open(CARA)
    add_member(ledger, disputes.name, "cara", role="adjudicator")
    assert decide.open(CARA)
    with pytest.raises(UsageError, match="adjudication decides between two"):
        create_adjudication(ledger, disputes, LEA)

    from_data = create_project(ledger, "again", task=read_definition("adjudication"), data=project.data)
    assert from_data.skipped == {"people do not disagree on it": 10}
    with open_warehouse(read_only=True) as connection:
        votes = votes_on(connection, desk.items[3], (0, 1))
    assert sorted(vote["rater"] for vote in votes if vote["rater"] in ("anna", "ben")) == ["anna", "ben"]


def test_where_nobody_disagrees_there_is_nothing_to_decide(ledger: Ledger, make_project: Make, pairs: str) -> None:
    with pytest.raises(DataError, match="nobody disagrees in sums yet"):
        create_adjudication(ledger, make_project(), LEA)
    with pytest.raises(DataError, match="12 rows: people do not disagree on it"):
        create_project(ledger, "again", task=read_definition("adjudication"), data=pairs)


def test_a_repeat_is_no_second_vote(ledger: Ledger, make_project: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labeling_ui.desk.desk.REPEAT_AFTER", 2)
    project = make_project(overlap=1, repeat_share=0.49, seed=3)
    desk = project.desk(ledger)
    while held := desk.open(ANNA):
        right = [text[-1].content.startswith("right") for text in desk.shown(held[0])].index(True)
        desk.submit(ANNA, held[0].id, Answer(better=right if held[0].counts else 1 - right))
    repeated = [hold.item for hold in desk.answered() if not hold.counts]
    assert repeated
    with pytest.raises(DataError, match="nobody disagrees"):
        create_adjudication(ledger, project, LEA)
    with pytest.raises(DataError, match="people do not disagree"):
        create_project(ledger, "again", task=read_definition("adjudication"), data=project.data)
    with open_warehouse(read_only=True) as connection:
        votes = votes_on(connection, desk.items[repeated[0]], (0, 1))
    assert [vote["rater"] for vote in votes].count("anna") == 1


def test_a_reaction_is_to_one_response(ledger: Ledger, make_project: Make, pairs: str, singles: str) -> None:
    """A thumb on a pair went to the response stored first."""
    with pytest.raises(DataError, match="12 rows: 2 responses, and a reaction is to one"):
        make_project(kind="reaction")
    assert len(make_project(kind="reaction", data=singles).desk(ledger).items) == 6
