"""What a lead does to a running project: known items, assignment, task versions, reviews, decisions in the labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from labeling_ui.desk.answers import Answer
from labeling_ui.desk.desk import Desk
from labeling_ui.learning.from_answers import order_by_answers, strategy_in_use
from labeling_ui.projects.disputes import create_adjudication
from labeling_ui.projects.groups import Rule, chosen, groups, put_group, put_rules
from labeling_ui.projects.known import KnownAdded, add_known, import_known, open_items
from labeling_ui.projects.labels import commit_labels
from labeling_ui.projects.pace import pace
from labeling_ui.projects.people import ForbiddenError, Person, add_person, by_token, invite
from labeling_ui.projects.project import Project
from labeling_ui.projects.reviews import reviews, write_review
from labeling_ui.projects.revisions import revise_task, revisions
from labeling_ui.projects.work import Work
from labeling_ui.web.studio import Studio
from rmkit.errors import DataError, UsageError
from rmkit.ledger import Ledger
from tests.labeling_ui.conftest import ANNA, BEN, CARA, LEA
from warehouse.store import open_warehouse
from warehouse.versions.checkout import checkout
from warehouse.versions.versions import resolve

Make = Callable[..., Project]


def _right(desk: Desk, person: Person, *, wrong: bool = False, **more: int) -> int | None:
    """Answer the person's next item rightly; its number, None where there is none."""
    held = desk.open(person)
    if not held:
        return None
    right = [text[-1].content.startswith("right") for text in desk.shown(held[0])].index(True)
    desk.submit(person, held[0].id, Answer(better=1 - right if wrong else right), **more)
    return held[0].item


def _ranks(desk: Desk, number: int) -> list[int]:
    return [0, 1] if desk.items[number].responses[0][0].content.startswith("right") else [1, 0]


def test_an_item_that_nobody_has_opened_becomes_a_known_one(ledger: Ledger, make_project: Make) -> None:
    project = make_project(gold_share=0.5)
    desk = project.desk(ledger)
    (hold,) = desk.open(ANNA)
    with pytest.raises(ForbiddenError, match="may not add known answers"):
        add_known(ledger, project, ANNA, {1: {"ranks": [0, 1]}})
    with pytest.raises(DataError, match="ranks has 2 values"):
        add_known(ledger, project, LEA, {1: {"ranks": [0]}})
    other = next(number for number in range(12) if number != hold.item)
    right = {number: {"ranks": _ranks(desk, number)} for number in (hold.item, other)}
    added = add_known(ledger, project, LEA, right)
    assert added == KnownAdded(1, {"somebody has opened it already": 1})
    assert add_known(ledger, project, LEA, {other: right[other]}).left_out == {"known already": 1}
    again = project.desk(ledger)
    assert again.items.with_gold().tolist() == [other]
    assert again.progress()["items"] == 11
    assert other not in open_items(ledger, project, again.items)
    numbers = [_right(again, BEN) for _ in range(12)]
    assert sorted(numbers) == list(range(12))  # type: ignore[type-var]
    work = Work(ledger, "sums", again.items).frame()
    assert work.filter(work["gold_right"].is_not_null())["item"].to_list() == [other]
    assert import_known(ledger, project, LEA, "sums@v1").items == 0  # all opened by now


def test_reserved_items_go_first_to_whom_they_are_for_and_to_nobody_else(ledger: Ledger, make_project: Make) -> None:
    """Question 7 is for Anna by a text, items 0 and 1 for the group of Ben and Cara; the rest is for all three."""
    project = make_project(overlap=1)
    for person in (ANNA, BEN, CARA):
        add_person(ledger, person.name, role=person.role)
    with pytest.raises(UsageError, match="no group 'quick'"):
        put_rules(ledger, LEA, "sums", [Rule(people=(), groups=("quick",), last=1)])
    put_group(ledger, LEA, "quick", ["ben", "cara"])
    assert groups(ledger) == {"quick": ("ben", "cara")}
    rules = [Rule(people=("anna",), contains="QUESTION 7:"), Rule(people=(), groups=("quick",), first=0, last=1)]
    put_rules(ledger, LEA, "sums", rules)
    desk = project.desk(ledger)
    [seventh], numbers = (chosen(rule, desk.items) for rule in rules)
    assert desk.items[seventh].prompt[0].content.startswith("Question 7:")
    assert numbers == [0, 1]
    assert seventh not in numbers
    assert _right(desk, ANNA) == seventh
    assert {_right(desk, BEN), _right(desk, CARA)} == {0, 1}
    rest = [_right(desk, ANNA) for _ in range(10)]
    assert (len(set(rest[:9]) & {seventh, 0, 1}), rest[9]) == (0, None)
    with pytest.raises(ForbiddenError, match="may not assign items"):
        put_rules(ledger, ANNA, "sums", [])


def test_a_reserved_item_that_was_skipped_or_ran_out_stays_with_its_people(ledger: Ledger, make_project: Make) -> None:
    project = make_project(overlap=1, lease_s=1)
    for person in (ANNA, BEN):
        add_person(ledger, person.name, role=person.role)
    put_rules(ledger, LEA, "sums", [Rule(people=("anna",), items=(3, 5))])
    desk = project.desk(ledger)
    (hold,) = desk.open(ANNA)
    desk.submit(ANNA, hold.id, Answer(verdict="skip"))
    (second,) = desk.open(ANNA)
    assert {hold.item, second.item} == {3, 5}
    desk.release(ANNA, second.id)
    others = [_right(desk, BEN) for _ in range(11)]
    assert (set(others[:10]) & {3, 5}, others[10]) == (set(), None)


def test_a_changed_task_is_a_new_version_that_a_running_studio_takes_up(ledger: Ledger, make_project: Make) -> None:
    project = make_project(overlap=1)
    here = Studio(ledger)
    assert here.desk("sums").task.overlap == 1
    changed = replace(project.task, overlap=3, guidelines="Truth first.")
    with pytest.raises(ForbiddenError, match="may not change the task"):
        revise_task(ledger, project, ANNA, changed)
    with pytest.raises(UsageError, match="stays one"):
        revise_task(ledger, project, LEA, replace(project.task, kind="ranking"))
    revised = revise_task(ledger, project, LEA, changed, why="more votes")
    assert here.desk("sums").task == revised.task == changed
    assert here.desk("sums").progress()["wanted"] == 36
    with pytest.raises(UsageError, match="somebody else changed the task"):
        revise_task(ledger, project, LEA, replace(project.task, overlap=9))
    versions = [(one.task.overlap, one.lead, one.why) for one in revisions(ledger, "sums")]
    assert versions == [(3, "lea", "more votes"), (1, project.created_by, "as it was created")]


def test_a_returned_answer_is_gone_and_comes_first_to_who_gave_it(ledger: Ledger, make_project: Make) -> None:
    project = make_project(overlap=1, lease_s=1)
    desk = project.desk(ledger)
    work = Work(ledger, "sums", desk.items)
    item = _right(desk, ANNA, wrong=True)
    _right(desk, ANNA)
    event = work.frame().filter(work.frame()["item"] == item)["event"][0]
    with pytest.raises(ForbiddenError, match="may not return"):
        desk.return_answer(BEN, event, comment="no")
    with pytest.raises(UsageError, match="needs a comment"):
        desk.return_answer(LEA, event, comment=" ")
    elsewhere = project.desk(ledger)
    elsewhere.return_answer(LEA, event, comment="look again")
    assert work.frame()["item"].to_list() != [item]
    assert work.frame().height == 1
    (hold,) = project.desk(ledger).open(ANNA)
    assert hold.item == item
    review = desk.returned(hold)
    assert review is not None
    assert (review.comment, review.lead, review.rater) == ("look again", "lea", "anna")
    assert hold.until - hold.opened > 86_400  # nobody else gets it while Anna is away
    fresh = project.desk(ledger)
    assert _right(fresh, ANNA) == item
    assert work.frame().height == 2
    with pytest.raises(UsageError, match="no answer of sums now"):
        fresh.return_answer(LEA, event, comment="again")
    (answered,) = [hold for hold in fresh.history(ANNA) if hold.item == item]
    assert fresh.returned(replace(answered, revision=0)) is None
    write_review(ledger, "sums", LEA, event=str(answered.event), rater="anna", decision="accepted")
    assert {one.decision for one in reviews(ledger, "sums").values()} == {"returned", "accepted"}
    assert [one.event.payload["decision"] for one in ledger.events(kinds=["label_review"])] == ["returned", "accepted"]


def test_a_decision_stands_for_all_votes_on_its_pair(ledger: Ledger, make_project: Make) -> None:
    project = make_project(overlap=2)
    desk = project.desk(ledger)
    for person, wrong in ((ANNA, False), (BEN, True)):
        for _ in range(12):
            held = desk.open(person)
            _right(desk, person, wrong=wrong and held[0].item in (2, 9))
    disputes = create_adjudication(ledger, project, LEA)
    assert (disputes.source, disputes.created_by) == ("sums", "lea")
    decide = disputes.desk(ledger)
    (hold,) = decide.open(LEA)
    right = [text[-1].content.startswith("right") for text in decide.shown(hold)].index(True)
    decide.submit(LEA, hold.id, Answer(better=right, rationale="it is right"))
    decided = decide.items[hold.item].unit
    version = commit_labels(ledger, project, LEA).version
    with open_warehouse(read_only=True) as connection:
        table = checkout(connection, resolve(connection, version.ref), columns=("unit", "p", "n_votes"))
    rows = {row["unit"]: (max(row["p"]), row["n_votes"]) for row in table.to_pylist()}
    undecided = next(desk.items[number].unit for number in (2, 9) if desk.items[number].unit != decided)
    assert (rows[decided], rows[undecided]) == ((1.0, 1), (0.5, 2))
    assert sorted(rows.values()) == sorted([(0.5, 2), (1.0, 1)] + [(1.0, 2)] * 10)


def test_a_lead_invites_new_people_and_takes_over_nobody(ledger: Ledger) -> None:
    token = invite(ledger, LEA, "dora")
    assert by_token(ledger, token) == Person("dora", "annotator")
    admin = add_person(ledger, "root", role="admin")
    with pytest.raises(UsageError, match="root has an account already"):
        invite(ledger, LEA, "root")
    assert by_token(ledger, admin).role == "admin"
    with pytest.raises(ForbiddenError, match="may not invite"):
        invite(ledger, ANNA, "eve")


def test_the_pace_counts_the_last_week_and_the_work_that_is_left(ledger: Ledger, make_project: Make) -> None:
    """Six answers of 30 s in two days: three a day, so that 30 more are 10 days and a quarter of an hour of work."""
    desk = make_project(overlap=1).desk(ledger)
    frame = Work(ledger, "sums", desk.items).frame()
    now = datetime(2026, 3, 10, tzinfo=UTC)
    rows = [
        {"event": str(at), "rater": "a", "item": at, "slot": "0", "verdict": "ok", "active_s": 30.0, "time": now - age}
        for at, age in enumerate([timedelta(hours=h) for h in (48, 40, 30, 20, 10, 1)])
    ]
    work = pl.DataFrame(rows, schema=frame.schema)
    result = pace(work, left=30, now=now)
    assert [result.per_day, result.days, result.work_h] == pytest.approx([3, 10, 0.25])
    later = pace(work, left=30, now=now + timedelta(days=30))
    assert (later.per_day, later.days) == (0, None)
    assert pace(frame, left=5, now=now).days is None


def test_the_queue_is_learned_from_the_answers_and_taken_up_while_the_studio_runs(
    ledger: Ledger, make_project: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features stand in for the encoder: item k lies at k, the answers say that the first is better above 6.

    So items 5 to 8 are the uncertain ones, and `uncertainty` draws one of those left among them first.
    """

    def features(items: object, numbers: list[int]) -> object:
        return np.array([[one - 6.5] for one in numbers], np.float64)

    monkeypatch.setattr("labeling_ui.learning.from_answers.differences", features)
    monkeypatch.setattr("labeling_ui.learning.from_answers.LEAST", 8)
    project = make_project(overlap=1)
    here = Studio(ledger)
    work = pl.DataFrame(
        [
            {"event": str(at), "item": at, "slot": "0", "verdict": "ok", "ranks": [0, 1] if at > 6 else [1, 0]}
            for at in (0, 1, 2, 3, 4, 9, 10, 11)
        ],
        schema=here.work("sums").frame().schema,
    )
    assert strategy_in_use(ledger, "sums") == "random"
    with pytest.raises(DataError, match="3 pairs have an answer"):
        order_by_answers(ledger, project, LEA, work.head(3), "uncertainty")
    with pytest.raises(UsageError, match="needs reward models"):
        order_by_answers(ledger, project, LEA, work, "mislabel")
    before = here.desk("sums")
    assert order_by_answers(ledger, project, LEA, work, "uncertainty")["items"] == 4
    after = here.desk("sums")
    assert after is not before
    stored = np.load(project.folder / "weights.npy")
    assert stored[[0, 1, 2, 3, 4, 9, 10, 11]].tolist() == [1.0] * 8
    assert stored[5:9].mean() == pytest.approx(1)
    assert int(stored.argmax()) in (6, 7)  # nearest to where the answers turn
    order_by_answers(ledger, project, LEA, work, "random")
    assert strategy_in_use(ledger, "sums") == "random"
    assert set(np.load(project.folder / "weights.npy")) == {1.0}
