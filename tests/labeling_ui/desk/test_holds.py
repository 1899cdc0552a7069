"""What a process knows of holds: their order, who answered what, and the counters, also after a restart."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from labeling_ui.desk.answers import Answer
from labeling_ui.desk.desk import Desk
from labeling_ui.desk.display_order import drawing
from labeling_ui.desk.item_weights import write_weights
from labeling_ui.projects.project import Project
from rmkit.ledger import Ledger
from tests.labeling_ui.conftest import ANNA, BEN

Make = Callable[..., Project]


def test_after_a_restart_the_items_come_in_the_order_in_which_they_were_taken(
    ledger: Ledger, make_project: Make
) -> None:
    """Whoever has an item on the screen while the server dies finds the same one there afterwards."""
    project = make_project()
    taken = project.desk(ledger).open(ANNA, ahead=5)
    assert [hold.id for hold in taken] != sorted(hold.id for hold in taken)
    assert project.desk(ledger).open(ANNA, ahead=5) == taken


def test_what_was_taken_back_comes_first_before_and_after_a_restart(ledger: Ledger, make_project: Make) -> None:
    project = make_project()
    desk = project.desk(ledger)
    first, second = desk.open(ANNA, ahead=2)
    desk.submit(ANNA, first.id, Answer(better=0))
    undone = desk.undo(ANNA, first.id)
    for opened in (desk, project.desk(ledger)):
        assert opened.open(ANNA, ahead=2) == [undone, second]


def test_the_newest_answer_is_the_first_of_the_history(ledger: Ledger, make_project: Make) -> None:
    desk = make_project().desk(ledger)
    held = desk.open(ANNA, ahead=4)
    for number in (2, 0, 3):
        desk.submit(ANNA, held[number].id, Answer(better=0))
    assert [hold.id for hold in desk.history(ANNA)] == [held[number].id for number in (3, 0, 2)]
    assert [hold.id for hold in desk.history(ANNA, limit=1)] == [held[3].id]
    desk.undo(ANNA, held[3].id)
    assert [hold.id for hold in desk.history(ANNA)] == [held[number].id for number in (0, 2)]
    assert desk.n_answered(ANNA) == 2


def _counted_anew(desk: Desk) -> dict[str, int]:
    """The progress as a walk over all answers has it."""
    answered = desk.answered()
    of_item = Counter(hold.item for hold in answered if hold.counts)
    return {
        "answered": sum(of_item.values()),
        "complete": sum(count >= desk.task.overlap for count in of_item.values()),
        "gold_and_repeats": sum(not hold.counts for hold in answered),
    }


def test_the_counters_are_right_after_any_answers_undone_ones_others_answers_and_restarts(
    ledger: Ledger, make_project: Make
) -> None:
    project, rng = make_project(overlap=2, repeat_share=0.4), random.Random(3)
    one, other = project.desk(ledger), project.desk(ledger)  # two servers that know nothing of each other
    for turn in range(120):
        desk, person = rng.choice(((one, ANNA), (other, BEN), (one, BEN)))
        done = desk.history(person)
        if done and rng.random() < 0.3:
            desk.undo(person, rng.choice(done).id)
        elif held := desk.open(person):
            desk.submit(person, held[0].id, Answer(better=rng.randrange(2)))
        if turn % 10 == 9:
            restarted = project.desk(ledger)
            for known in (one, other, restarted):
                known.progress()
                assert known.progress().items() >= _counted_anew(restarted).items()
    assert one.progress()["answered"] > 10


def test_another_process_that_dies_before_its_hold_is_written_does_not_upset_the_counters(
    ledger: Ledger, make_project: Make
) -> None:
    project = make_project()
    one, other = project.desk(ledger), project.desk(ledger)
    (hold,) = other.open(ANNA)
    ledger.append(other._event(hold, Answer(better=0), active_ms=None, wall_ms=None))
    assert [one.progress()["answered"] for _ in range(3)] == [0, 0, 0]
    project.desk(ledger)  # mends it
    assert project.desk(ledger).progress()["answered"] == 1


def test_a_desk_draws_its_order_once(ledger: Ledger, make_project: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_project()
    write_weights(project.folder, np.arange(1.0, 13.0))
    drawn: list[list[float]] = []
    monkeypatch.setattr(
        "labeling_ui.desk.desk.drawing",
        lambda weights, seed: drawn.append(list(weights)) or drawing(weights, seed=seed),
    )
    project.desk(ledger)
    assert drawn == [list(range(1, 13))]
