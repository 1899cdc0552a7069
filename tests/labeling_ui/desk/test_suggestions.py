"""Suggestions: unseen before an own choice, recorded with every answer, and made of scores or former answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from labeling_ui.desk.answers import Answer
from labeling_ui.desk.desk import Desk
from labeling_ui.desk.suggestions import Suggestions, in_places, likeness, write_suggestions
from labeling_ui.learning.suggest import suggest_by_answers, suggest_by_model
from labeling_ui.projects.definition import TaskDefinition
from labeling_ui.projects.people import ForbiddenError
from labeling_ui.projects.project import Project, open_project
from rmkit.errors import ConfigError, UsageError
from rmkit.ledger import Ledger
from tests.labeling_ui.conftest import ANNA, BEN, LEA

Make = Callable[..., Project]


def _suggested(ledger: Ledger, make: Make, *, ranks: list[int], **options: Any) -> Desk:
    """A desk whose twelve pairs all have the same suggestion, in stored positions."""
    project = make(**{"suggestions": "after", "suggestion_share": 1.0, "overlap": 1, **options})
    write_suggestions(project.folder, {item: {"ranks": ranks} for item in range(12)}, source="model m 1234")
    return open_project(ledger, project.name).desk(ledger)


def _extra(ledger: Ledger) -> list[dict[str, Any]]:
    return [recorded.event.payload["extra"] for recorded in ledger.events(kinds=["judgment"])]


def test_nothing_is_suggested_before_the_own_choice_and_everything_is_written_down(
    ledger: Ledger, make_project: Make
) -> None:
    desk = _suggested(ledger, make_project, ranks=[0, 1])
    (hold,) = desk.open(ANNA)
    assert desk.suggested(hold) is None
    assert desk.first_choice(hold) is None
    second, first = hold.order.index(1), hold.order.index(0)
    suggested = desk.choose_first(ANNA, hold.id, Answer(better=second, strength=2))
    assert suggested == {"ranks": [0, 1] if hold.order == (0, 1) else [1, 0]}
    desk.choose_first(ANNA, hold.id, Answer(better=first, strength=2))  # too late to have been the first
    assert desk.first_choice(hold) == Answer(better=second, strength=2)
    event = desk.submit(ANNA, hold.id, Answer(better=first, strength=1))
    (extra,) = _extra(ledger)
    assert extra["suggested"] == {"values": {"ranks": [0, 1]}, "source": "model m 1234", "mode": "after"}
    assert (extra["drawn"], extra["seen"], extra["followed"]) == (True, True, True)
    (recorded,) = ledger.events(kinds=["judgment"])
    assert recorded.event.payload["suggestion_seen"] is True
    assert extra["first"]["ranks"] == [1, 0]
    write_suggestions(open_project(ledger, "sums").folder, {0: {"ranks": [1, 0]}}, source="model n")
    again = open_project(ledger, "sums").desk(ledger)
    assert again.submit(ANNA, hold.id, Answer(better=first, strength=1)) == event  # a repeat stays a repeat
    hold = desk.undo(ANNA, hold.id)
    assert desk.suggested(hold) == suggested  # it has been seen: nobody chooses first twice


def test_who_agrees_sees_nothing_and_who_is_not_drawn_is_the_comparison(ledger: Ledger, make_project: Make) -> None:
    desk = _suggested(ledger, make_project, ranks=[0, 1])
    (hold,) = desk.open(ANNA)
    assert desk.choose_first(ANNA, hold.id, Answer(better=hold.order.index(0), strength=3)) is None
    desk.submit(ANNA, hold.id, Answer(better=hold.order.index(0), strength=3))
    (extra,) = _extra(ledger)
    assert (extra["drawn"], extra["seen"], extra["followed"]) == (True, False, True)
    hidden = _suggested(ledger, make_project, ranks=[0, 1], name="hidden", suggestion_share=0.0)
    (hold,) = hidden.open(ANNA)
    assert hidden.choose_first(ANNA, hold.id, Answer(better=hold.order.index(1), strength=1)) is None
    hidden.submit(ANNA, hold.id, Answer(better=hold.order.index(1), strength=1))
    extra = _extra(ledger)[-1]
    assert (extra["drawn"], extra["seen"], extra["followed"], "first" in extra) == (False, False, False, False)


def test_off_is_the_default_and_shows_and_writes_nothing(ledger: Ledger, make_project: Make) -> None:
    assert make_project("plain").task.suggestions == "off"
    desk = _suggested(ledger, make_project, ranks=[0, 1], name="off", suggestions="off")
    (hold,) = desk.open(ANNA)
    assert desk.choose_first(ANNA, hold.id, Answer(better=hold.order.index(1), strength=1)) is None
    desk.submit(ANNA, hold.id, Answer(better=0, strength=1))
    assert "suggested" not in _extra(ledger)[0]


def test_a_skip_is_no_first_choice_and_a_repeat_has_no_suggestion(ledger: Ledger, make_project: Make) -> None:
    desk = _suggested(ledger, make_project, ranks=[0, 1], repeat_share=0.5)
    slots: list[str] = []
    for _ in range(14):
        for hold in desk.open(ANNA):
            slots.append(hold.slot)
            assert desk.choose_first(ANNA, hold.id, Answer(verdict="skip")) is None
            assert desk.first_choice(hold) is None
            desk.submit(ANNA, hold.id, Answer(better=0, strength=1))
    repeats = [extra for extra in _extra(ledger) if not str(extra["slot"]).isdigit()]
    assert any(slot.startswith("repeat-") for slot in slots)
    assert not any("suggested" in extra for extra in repeats)


def test_an_edit_may_begin_with_a_suggestion_and_its_likeness_is_measured(ledger: Ledger, make_project: Make) -> None:
    project = make_project("edits", kind="edit", suggestions="prefilled", suggestion_share=1.0, overlap=1)
    turns = [{"role": "assistant", "content": "abcd"}]
    write_suggestions(project.folder, {item: {"edit": turns, "edited": 1} for item in range(12)}, source="answers of e")
    desk = open_project(ledger, "edits").desk(ledger)
    (hold,) = desk.open(ANNA)
    place = hold.order.index(1)
    assert desk.suggested(hold) == {"edit": turns, "edited": place}
    desk.submit(ANNA, hold.id, Answer(better=place, edit="abcd!"))
    (recorded,) = ledger.events(kinds=["edit"])
    extra = recorded.event.payload["extra"]
    assert (extra["seen"], extra["followed"]) == (True, False)
    # 4 of 4 + 5 characters in common, twice over their number
    assert likeness(extra["suggested"]["values"], recorded.event.payload) == pytest.approx(8 / 9)


def test_values_turn_into_shown_places() -> None:
    scores = [{"response": 2, "aspect": "truth", "value": 4.0}]
    values = {"ranks": [0, 1, 2], "scores": scores, "edited": 0}
    assert in_places(values, (2, 0, 1)) == {"ranks": [2, 0, 1], "scores": [{**scores[0], "response": 0}], "edited": 1}
    assert likeness({"scores": scores}, {"scores": [*scores, {"response": 0, "aspect": "truth", "value": 1.0}]}) == 1
    assert likeness({"step_labels": [1.0, 0.0, None]}, {"step_labels": [1.0, 0.0, None]}) == 1
    assert likeness({"value": -1.0}, {"value": 1.0}) == 0


def test_a_task_takes_only_a_mode_that_fits_its_kind() -> None:
    words = {"name": "t", "title": "T", "question": "Q?"}
    with pytest.raises(ConfigError, match="off or prefilled"):
        TaskDefinition(kind="edit", suggestions="after", **words)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"not for a spans task; off$"):
        TaskDefinition(kind="spans", suggestions="after", **words)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="suggestion_share"):
        TaskDefinition(kind="pairwise", suggestion_share=1.5, **words)  # type: ignore[arg-type]


def test_scores_of_a_model_and_the_answers_of_most_are_suggested(ledger: Ledger, make_project: Make) -> None:
    """Of each pair, "right: 2n" is shorter than "wrong: 2n + 1!", and the rule of length prefers what is longer."""
    project = make_project("by-model", suggestions="after")
    assert suggest_by_model(ledger, project, LEA, "length", trusted=True) == 12
    stored, items = Suggestions(project.folder), project.desk(ledger).items
    for number in (0, 7):
        texts = [response[0].content for response in items[number].responses]
        suggestion = stored.of(number)
        assert suggestion is not None
        assert suggestion.values["ranks"] == [int(text.startswith("right")) for text in texts]
    with pytest.raises(UsageError, match="unknown model"):
        suggest_by_model(ledger, project, LEA, "length")
    with pytest.raises(ForbiddenError):
        suggest_by_answers(ledger, project, ANNA, "by-model")
    former = make_project("former", overlap=2)
    desk = former.desk(ledger)
    for person, stored_best in ((ANNA, 1), (BEN, 1)):
        (hold,) = desk.open(person)
        desk.submit(person, hold.id, Answer(better=hold.order.index(stored_best), strength=1))
    n = suggest_by_answers(ledger, project, LEA, "former")
    suggestions = Suggestions(project.folder)
    stored = [suggestion.values for item in range(12) if (suggestion := suggestions.of(item))]
    assert (n, stored) == (len(stored), [{"ranks": [1, 0]}] * n)
    assert suggestions.source == "answers of former"
    with pytest.raises(UsageError, match="pairwise project"):
        suggest_by_answers(ledger, make_project("edits", kind="edit"), LEA, "former")
