"""Who gets what, and that no answer is lost, doubled or given to too many."""

from __future__ import annotations

import re
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from labeling_ui.desk.answers import Answer
from labeling_ui.desk.desk import Desk
from labeling_ui.desk.leases import Lease, Taken
from labeling_ui.projects.people import ForbiddenError, Person
from labeling_ui.projects.project import Project, open_project
from rmkit.errors import DataError, UsageError
from rmkit.ledger import Ledger
from tests.harness.growth_studio import desk_of
from tests.labeling_ui.conftest import ANNA, BEN, CARA, LEA

Make = Callable[..., Project]


def _right(desk: Desk, hold: Lease) -> Answer:
    """The answer that names the response that says it is right."""
    texts = [response[-1].content for response in desk.shown(hold)]
    return Answer(better=next(place for place, text in enumerate(texts) if text.startswith("right")), strength=2)


def _answer_all(desk: Desk, person: Person) -> int:
    count = 0
    while held := desk.open(person):
        desk.submit(person, held[0].id, _right(desk, held[0]))
        count += 1
    return count


def test_each_item_is_judged_by_as_many_people_as_the_task_says(ledger: Ledger, make_project: Make) -> None:
    desk = make_project(overlap=2).desk(ledger)
    counts = [_answer_all(desk, person) for person in (ANNA, BEN, CARA)]
    assert counts == [12, 12, 0]
    assert set(Counter(hold.item for hold in desk.answered()).values()) == {2}
    assert desk.progress() == {
        "set_aside": 0,
        "items": 12,
        "wanted": 24,
        "answered": 24,
        "at_work": 0,
        "complete": 12,
        "gold_and_repeats": 0,
    }


def test_a_judgment_names_stored_positions_whatever_was_shown(ledger: Ledger, make_project: Make) -> None:
    desk = make_project(overlap=2).desk(ledger)
    for person in (ANNA, BEN):
        _answer_all(desk, person)
    orders = Counter()
    for recorded in ledger.events(kinds=["judgment"]):
        payload = recorded.event.payload
        item = desk.items[payload["extra"]["item"]]
        assert item.responses[payload["ranks"].index(0)][-1].content.startswith("right")
        assert payload["strength"] == 2.0
        orders[tuple(payload["shown_order"])] += 1
    assert orders == {(0, 1): 12, (1, 0): 12}  # two people see a pair in both orders


def test_a_second_submission_of_the_same_answer_is_the_same_event(ledger: Ledger, make_project: Make) -> None:
    desk = make_project().desk(ledger)
    (hold,) = desk.open(ANNA)
    first = desk.submit(ANNA, hold.id, Answer(better=0), wall_ms=10)
    assert desk.submit(ANNA, hold.id, Answer(better=0), wall_ms=99) == first
    with pytest.raises(UsageError, match="answered already; undo it first"):
        desk.submit(ANNA, hold.id, Answer(better=1))
    assert ledger.last_seq() == 1


def test_an_undone_answer_is_superseded_and_can_be_given_again(ledger: Ledger, make_project: Make) -> None:
    desk = make_project().desk(ledger)
    (hold,) = desk.open(ANNA)
    first = desk.submit(ANNA, hold.id, Answer(better=0))
    again = desk.undo(ANNA, hold.id)
    assert desk.open(ANNA) == [again]
    second = desk.submit(ANNA, hold.id, Answer(better=1))
    events = [recorded.event for recorded in ledger.events()]
    assert [event.supersedes for event in events] == [None, first, events[1].id]
    assert events[2].id == second
    with pytest.raises(UsageError, match="no answer to undo"):
        desk.undo(BEN, desk.open(BEN)[0].id)


def test_a_lapsed_hold_goes_to_someone_else_and_the_late_answer_is_refused(
    ledger: Ledger, make_project: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = make_project(overlap=1, lease_s=60).desk(ledger)
    (hold,) = desk.open(ANNA)
    later = time.time() + 61
    monkeypatch.setattr("labeling_ui.desk.desk.time.time", lambda: later)
    (taken,) = desk.open(BEN)
    assert taken.item == hold.item
    with pytest.raises(UsageError, match="does not hold"):
        desk.submit(ANNA, hold.id, Answer(better=0))
    desk.submit(BEN, taken.id, Answer(better=0))


def test_a_late_answer_counts_where_nobody_else_has_the_item(
    ledger: Ledger, make_project: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = make_project(lease_s=60).desk(ledger)
    (hold,) = desk.open(ANNA)
    later = time.time() + 3600
    monkeypatch.setattr("labeling_ui.desk.desk.time.time", lambda: later)
    desk.submit(ANNA, hold.id, Answer(better=0))
    assert [one.event is not None for one in desk.answered()] == [True]


def test_a_restart_keeps_holds_drafts_and_answers(ledger: Ledger, make_project: Make) -> None:
    project = make_project()
    desk = project.desk(ledger)
    first, second = desk.open(ANNA, ahead=2)
    desk.submit(ANNA, first.id, Answer(better=0))
    desk.keep_draft(ANNA, second.id, {"rationale": "half a sent"})
    again = project.desk(ledger)
    assert again.open(ANNA) == [second]
    assert again.draft(ANNA, second.id) == {"rationale": "half a sent"}
    assert [hold.id for hold in again.history(ANNA)] == [first.id]


def test_a_crash_between_the_event_and_the_hold_is_mended(ledger: Ledger, make_project: Make) -> None:
    project = make_project(overlap=1)
    desk = project.desk(ledger)
    (hold,) = desk.open(ANNA)
    event = desk._event(hold, Answer(better=0), active_ms=None, wall_ms=None)
    ledger.append(event)  # and then the process died
    again = project.desk(ledger)
    assert [one.event for one in again.answered()] == [str(event.id)]
    assert hold.item not in {one.item for one in again.open(ANNA, ahead=12)}


def test_two_processes_never_hand_one_slot_to_two_people(ledger: Ledger, make_project: Make) -> None:
    """Two desks that know nothing of each other, as two servers on one ledger."""
    project = make_project(overlap=1)
    one, other = project.desk(ledger), project.desk(ledger)
    counts = {"anna": 0, "ben": 0}

    def work(desk: Desk, person: Person) -> None:
        counts[person.name] = _answer_all(desk, person)

    threads = [threading.Thread(target=work, args=pair) for pair in ((one, ANNA), (other, BEN))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts.values()) == 12 == ledger.last_seq()


def test_known_items_come_in_and_do_not_count(ledger: Ledger, make_project: Make, pairs: str) -> None:
    desk = make_project(gold=pairs, overlap=1, gold_share=0.4).desk(ledger)
    assert desk.progress()["items"] == 0  # all twelve are known
    assert all(hold.slot == "gold-anna" for hold in desk.open(ANNA, ahead=3))


def test_an_own_answer_comes_again_in_another_order(ledger: Ledger, make_project: Make) -> None:
    desk = make_project(overlap=1, repeat_share=0.45, seed=1).desk(ledger)
    _answer_all(desk, ANNA)
    repeats = [hold for hold in desk.answered() if hold.slot == "repeat-anna"]
    assert repeats
    first = {hold.item: hold.order for hold in desk.answered() if hold.counts}
    assert all(hold.order == first[hold.item][::-1] for hold in repeats)


def test_the_limit_the_pause_and_the_role_are_kept(ledger: Ledger, make_project: Make) -> None:
    desk = make_project(max_items=2).desk(ledger)
    assert _answer_all(desk, ANNA) == 2
    desk.pause(LEA, "ben", reason="ten answers in four seconds")
    with pytest.raises(UsageError, match="paused in sums: ten answers"):
        desk.open(BEN)
    desk.pause(LEA, "ben", paused=False, reason="talked to him")
    assert desk.open(BEN)
    with pytest.raises(ForbiddenError, match="anna is annotator and may not pause"):
        desk.pause(ANNA, "ben", reason="no")
    assert [recorded.event.actor for recorded in ledger.events(kinds=["label_pause"])] == ["lea", "lea"]


def test_answers_that_do_not_fit_are_refused_and_nothing_is_stored(ledger: Ledger, make_project: Make) -> None:
    desk = make_project(allow_tie=False).desk(ledger)
    (hold,) = desk.open(ANNA)
    for answer, told in (
        (Answer(better=None), "no tie"),
        (Answer(), "nothing was said"),
        (Answer(better=2), "place 2 was not shown"),
        (Answer(better=0, strength=4), "strength 4, the task has 3"),
        (Answer(verdict="bad_item"), "needs its reason"),
    ):
        with pytest.raises(DataError, match=told):
            desk.submit(ANNA, hold.id, answer)
    with pytest.raises(UsageError, match="ben does not hold"):
        desk.submit(BEN, hold.id, Answer(better=0))
    assert ledger.last_seq() == 0


def test_a_released_item_is_at_once_for_others_and_not_for_the_same_person(ledger: Ledger, make_project: Make) -> None:
    desk = make_project(overlap=1).desk(ledger)
    (hold,) = desk.open(ANNA)
    desk.release(ANNA, hold.id)
    assert desk.open(ANNA)[0].item != hold.item
    assert desk.open(BEN)[0].item == hold.item


def test_the_next_item_is_looked_for_behind_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each item of one person had cost a walk over all that they had answered while it waits for a second person."""
    desk, looks = desk_of(40, overlap=2), 0

    def counted(self: Taken, item: int) -> bool:
        nonlocal looks
        looks += 1
        return real(self, item)

    real = Taken.__contains__
    monkeypatch.setattr(Taken, "__contains__", counted)
    assert _answered(desk, ANNA, 40) == 40
    assert looks <= 3 * 40
    assert not desk.open(ANNA)
    assert _answered(desk, BEN, 40) == 40


def test_an_item_that_was_passed_on_comes_back_when_nothing_else_is_left(
    ledger: Ledger, make_project: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = make_project(overlap=2, lease_s=60).desk(ledger)
    (first,) = desk.open(ANNA)
    later = time.time() + 61
    with monkeypatch.context() as patch:
        patch.setattr("labeling_ui.desk.desk.time.time", lambda: later)
        desk.release(ANNA, first.id)
        assert _answered(desk, ANNA, 11) == 11
        assert desk.open(BEN)[0].key == first.key  # Ben has Anna's place of it now, its other one is free
        assert [hold.item for hold in desk.open(ANNA)] == [first.item]


def _answered(desk: Desk, person: Person, n: int) -> int:
    """How many of n items the person could answer."""
    for done in range(n):
        if not (held := desk.open(person)):
            return done
        desk.submit(person, held[0].id, Answer(better=0))
    return n


def test_weights_decide_what_comes_first_and_the_propensity_is_kept(ledger: Ledger, make_project: Make) -> None:
    desk = make_project(overlap=1, seed=1).desk(ledger)
    weights = np.full(12, 1e-9)
    weights[7] = 1.0
    desk.draw(weights)
    (hold,) = desk.open(ANNA)
    assert hold.item == 7
    assert hold.propensity == pytest.approx(0.9 + 0.1 / 12, abs=1e-6)
    assert replace(hold).key == "0000007/0"
    assert isinstance(desk.submit(ANNA, hold.id, Answer(verdict="skip", reason="not today")), uuid.UUID)


def test_a_skip_or_a_bad_item_takes_nobody_elses_place(ledger: Ledger, make_project: Make) -> None:
    """A skip had used up one of the two places: "complete" with one vote, or none."""
    desk = make_project(overlap=2).desk(ledger)
    for person in (ANNA, BEN):
        while held := desk.open(person):
            desk.submit(person, held[0].id, Answer(verdict="skip"))
    assert desk.progress() == {
        "items": 12, "set_aside": 0, "wanted": 24, "answered": 0, "at_work": 0, "complete": 0, "gold_and_repeats": 0
    }  # fmt: skip
    assert _answered(desk, CARA, 99) == 12
    assert _answered(desk, LEA, 99) == 12
    assert (desk.progress()["answered"], desk.progress()["complete"]) == (24, 12)
    again = _opened_anew(ledger, "sums")  # another process, started later
    assert again.progress() == desk.progress()
    assert not again.open(Person("dora", "annotator"))
    assert not desk.open(ANNA)  # who skipped an item does not get it again


def test_skips_seen_late_by_another_process_are_taken_up(ledger: Ledger, make_project: Make) -> None:
    one = make_project(overlap=1).desk(ledger)
    two = _opened_anew(ledger, "sums")
    (hold,) = one.open(ANNA)
    assert _answered(two, BEN, 99) == 11
    one.submit(ANNA, hold.id, Answer(verdict="skip"))
    two.open(BEN)
    assert [held.item for held in two.open(BEN)] == [hold.item]


def test_an_item_that_enough_people_call_bad_is_set_aside(ledger: Ledger, make_project: Make) -> None:
    desk = make_project(overlap=2).desk(ledger)
    (first,) = desk.open(ANNA)
    for person in (ANNA, BEN):
        hold = next(one for one in desk.open(person, ahead=12) if one.item == first.item)
        desk.submit(person, hold.id, Answer(verdict="bad_item", reason="broken text"))
    assert first.item not in {hold.item for hold in desk.open(CARA, ahead=12)}
    assert (desk.progress()["set_aside"], desk.progress()["wanted"]) == (1, 22)
    desk.undo(BEN, desk.history(BEN)[0].id)
    assert (desk.progress()["set_aside"], desk.progress()["wanted"]) == (0, 24)


def test_no_time_is_longer_than_the_item_was_held(
    ledger: Ledger, make_project: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A day of work on an item opened a moment ago was believed."""
    desk = make_project().desk(ledger)
    (hold,) = desk.open(ANNA)
    monkeypatch.setattr("labeling_ui.desk.desk.time.time", lambda: hold.opened + 7.0)
    desk.submit(ANNA, hold.id, Answer(better=0), active_ms=86_400_000, wall_ms=86_400_000)
    (second,) = desk.open(ANNA)
    monkeypatch.setattr("labeling_ui.desk.desk.time.time", lambda: second.opened + 9.0)
    desk.submit(ANNA, second.id, Answer(better=0), active_ms=6000, wall_ms=5000)
    payloads = [recorded.event.payload for recorded in ledger.events()]
    assert [(one["active_ms"], one["wall_ms"]) for one in payloads] == [(7000, 7000), (5000, 5000)]


def test_an_id_says_nothing_of_why_an_item_is_shown(ledger: Ledger, make_project: Make, pairs: str) -> None:
    """Known and repeated items were called gold-anna and repeat-anna."""
    desk = make_project(gold=pairs, gold_share=0.49, seed=2).desk(ledger)
    held = desk.open(ANNA, ahead=3)
    assert all(re.fullmatch(r"[0-9a-f]{32}", hold.id) for hold in held)
    assert len({hold.id for hold in held}) == 3
    with pytest.raises(UsageError, match="does not hold"):
        desk.submit(ANNA, held[0].key, Answer(better=0))
    other = _opened_anew(ledger, "sums")
    other.submit(ANNA, held[0].id, Answer(better=0))  # of a hold that another process gave out
    assert [recorded.event.payload["is_gold"] for recorded in ledger.events()] == [True]


def _opened_anew(ledger: Ledger, name: str) -> Desk:
    """The project's desk as another process opens it."""
    return open_project(ledger, name).desk(ledger)


def test_work_is_what_the_browser_counted_and_the_time_since(
    ledger: Ledger, make_project: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = make_project().desk(ledger)
    (hold,) = desk.open(ANNA)
    assert desk.activity(hold.id, idle_s=60) is None
    desk.note_activity("nobody's", 5)
    for at, active_ms in ((10.0, 4000), (20.0, 3000)):  # reports may overtake one another
        monkeypatch.setattr("labeling_ui.desk.desk.time.time", lambda at=at: at)
        desk.note_activity(hold.id, active_ms)
    for at, expected in ((22.0, 6000), (500.0, 64_000), (0.0, 4000)):
        monkeypatch.setattr("labeling_ui.desk.desk.time.time", lambda at=at: at)
        assert desk.activity(hold.id, idle_s=60) == expected
    assert desk.activity("nobody's", idle_s=60) is None
