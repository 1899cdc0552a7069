"""The pages as Streamlit runs them, without a browser."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from labeling_ui.desk.answers import Answer
from labeling_ui.desk.suggestions import Suggestions, write_suggestions
from labeling_ui.projects.definition import Aspect, Question
from labeling_ui.projects.disputes import create_adjudication
from labeling_ui.projects.export import answers_jsonl
from labeling_ui.projects.members import members
from labeling_ui.projects.people import Person, add_person, remove_person
from labeling_ui.projects.project import Project
from labeling_ui.projects.reviews import write_review
from labeling_ui.web import studio
from labeling_ui.web.server import merging
from labeling_ui.web.studio import Studio
from rmkit.ledger import Ledger
from tests.labeling_ui.conftest import ANNA, BEN, CARA, LEA
from tests.labeling_ui.web.answer_forms import answered, forms
from warehouse.events.sync import sync
from warehouse.store import open_warehouse

streamlit_testing = pytest.importorskip("streamlit.testing.v1")
Make = Callable[..., Project]
Open = Callable[..., "streamlit_testing.AppTest"]


@pytest.fixture
def opened(ledger: Ledger) -> Iterator[Open]:
    """A page of labeling_ui.web.pages, run for a person."""
    studio.use(Studio(ledger))

    def open_(module: str, person: Person = ANNA) -> streamlit_testing.AppTest:
        add_person(ledger, person.name, role=person.role)
        script = f"from labeling_ui.web.pages import {module}\n{module}.page()"
        app = streamlit_testing.AppTest.from_string(script, default_timeout=30)
        app.session_state["person"] = person
        return app.run()

    yield open_
    studio.use(None)


def _texts(app: streamlit_testing.AppTest) -> str:
    kinds = (app.markdown, app.caption, app.info, app.warning, app.error, app.success, app.subheader, app.header)
    drawn = [json.loads(element.proto.json).get("html", "") for element in app.get("bidi_component")]
    return "\n".join([str(element.value) for kind in kinds for element in kind] + drawn)


def _press(app: streamlit_testing.AppTest, label: str) -> streamlit_testing.AppTest:
    """Click Streamlit's own button, or the choice of that label in the answer's form."""
    buttons = [button for button in app.button if button.label == label]
    return buttons[0].click().run() if buttons else answered(app, {"choice": _choices(app).index(label)})


def _choices(app: streamlit_testing.AppTest) -> list[str]:
    return [option["label"] for shown in forms(app) for option in shown["form"].get("options", ())]


def test_without_a_project_the_page_says_what_to_do(opened: Open) -> None:
    for module in ("annotate", "my_work", "project_page"):
        assert "rmkit label create" in _texts(opened(module, LEA))


def test_one_press_writes_one_judgment_and_shows_the_next_item(
    opened: Open, make_project: Make, ledger: Ledger
) -> None:
    make_project()
    app = opened("annotate")
    before = _texts(app)
    assert "right" in before
    app = _press(app, "A much better")
    assert not app.exception
    assert _texts(app) != before
    (recorded,) = ledger.events(kinds=["judgment"])
    assert recorded.event.actor == "anna"
    assert recorded.event.payload["strength"] == 3.0
    assert recorded.event.payload["ranks"][recorded.event.payload["shown_order"][0]] == 0
    app = _press(app, "Undo")
    assert _texts(app) == before


def test_nobody_sees_a_model_name_a_known_answer_or_anothers_vote(opened: Open, make_project: Make, pairs: str) -> None:
    make_project(gold=pairs, gold_share=0.49)
    desk = studio.current().desk("sums")
    held = [(person, hold) for person in (ANNA, BEN, LEA) for hold in desk.open(person)]
    assert held
    for person, hold in held:
        assert desk.items[hold.item].gold
        told = studio.visible(desk, hold, person)
        assert set(told) == {"id", "kind", "prompt", "responses", "steps", "rubric", "held_until", "draft"}


QUIZ = (
    Question(text="What first?", choices=("style", "truth"), answer=1),
    Question(text="What last?", choices=("length", "style", "truth"), answer=0),
)


def test_a_quiz_must_be_passed_first(opened: Open, make_project: Make, ledger: Ledger) -> None:
    make_project(guidelines="Truth first.", quiz=QUIZ)
    app = opened("annotate")
    assert "Truth first." in _texts(app)
    assert [row["question"] for row in forms(app)[0]["form"]["rows"]] == ["What first?", "What last?"]
    app = answered(app, {"cells": [[1], [None]]})
    assert forms(app)[0]["refused"].startswith("1 of 2 right, 2 are needed")
    assert "Not right" not in _texts(app)
    app = answered(app, {"cells": [[1], [0]]})
    assert "tie" in _choices(app)
    assert [recorded.event.payload["passed"] for recorded in ledger.events(kinds=["label_quiz"])] == [False, True]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("wrong", ["Not right: What last\\?"]),
        ("answers", ["Not right: What last\\? Right is: length"]),
    ],
)
def test_a_quiz_says_what_its_lead_wants_and_ends_after_the_last_try(
    opened: Open, make_project: Make, ledger: Ledger, said: str, expected: list[str]
) -> None:
    make_project(guidelines="Truth first.", quiz=QUIZ, quiz_tries=2, quiz_feedback=said)
    app = answered(opened("annotate"), {"cells": [[1], [1]]})
    assert [line.value.replace("\\:", ":") for line in app.markdown if "right" in line.value] == expected
    assert "1 try left" in _texts(app)
    app = answered(app, {"cells": [[0], [1]]})
    assert "no try left" in _texts(app)
    assert not forms(app)
    assert "tie" not in _choices(opened("annotate"))
    assert len(list(ledger.events(kinds=["label_quiz"]))) == 2


def test_a_warning_comes_before_the_item_and_can_be_declined(opened: Open, make_project: Make, ledger: Ledger) -> None:
    make_project(warning="Some texts are offensive.")
    app = opened("annotate")
    assert "right" not in _texts(app)
    app = _press(app, "Show it")
    assert "right" in _texts(app)
    fresh = opened("annotate", BEN)
    _press(fresh, "Skip")
    (recorded,) = ledger.events(kinds=["judgment"])
    assert recorded.event.payload["verdict"] == "skip"


def test_an_ended_account_can_neither_answer_nor_read_on(opened: Open, make_project: Make, ledger: Ledger) -> None:
    make_project()
    app = opened("annotate")
    remove_person(ledger, "anna")
    app = _press(app, "tie")
    assert ledger.last_seq() == 0
    assert "no account for 'anna'" in _texts(app)
    assert "right" not in _texts(app)


def test_an_answer_to_an_item_that_has_gone_to_someone_else_is_told(
    opened: Open, make_project: Make, ledger: Ledger
) -> None:
    project = make_project(overlap=1, lease_s=60)
    app = opened("annotate")
    (hold,) = studio.current().desk("sums").open(ANNA)
    elsewhere = project.desk(ledger)
    elsewhere._holds.store(replace(hold, rater="ben"))
    before = _texts(app)
    app = _press(app, "tie")
    assert "anna does not hold" in forms(app)[0]["refused"]
    assert "right" in _texts(app)
    assert _texts(app) != before
    assert ledger.last_seq() == 0


def test_what_is_wrong_with_an_item_is_said_by_two_keys(opened: Open, make_project: Make, ledger: Ledger) -> None:
    make_project()
    app = _press(opened("annotate"), "Something is wrong")
    assert "tie" not in _choices(app)
    app = _press(app, "wrong language")
    assert "tie" in _choices(app)  # of the next item
    (recorded,) = ledger.events(kinds=["judgment"])
    assert (recorded.event.payload["verdict"], recorded.event.payload["rationale"]) == ("bad_item", "wrong language")


def test_differences_are_marked_on_demand_and_for_the_items_to_come(opened: Open, make_project: Make) -> None:
    make_project()
    app = opened("annotate")
    assert "background" not in _texts(app)
    app = _press(app, "Differences")
    assert "of the words are the same" in _texts(app)
    assert ":orange-background[**" in _texts(app)
    assert ":blue-background[**" in _texts(_press(app, "tie"))
    assert "background" not in _texts(_press(app, "Differences"))


def test_a_refused_answer_is_said_in_the_form_and_the_item_stays(
    opened: Open, make_project: Make, ledger: Ledger
) -> None:
    make_project(ask_rationale=True)
    app = _press(opened("annotate"), "tie")
    (shown,) = forms(app)
    assert "asks for a reason" in shown["refused"]
    assert ledger.last_seq() == 0
    app = answered(app, {"choice": _choices(app).index("tie"), "text": "because"})
    (shown,) = forms(app)
    assert shown["refused"] is None
    (recorded,) = ledger.events()
    assert recorded.event.payload["rationale"] == "because"


def test_an_answer_of_an_item_that_has_gone_writes_nothing(opened: Open, make_project: Make, ledger: Ledger) -> None:
    make_project()
    app = opened("annotate")
    (first,) = forms(app)
    app = _press(app, "tie")
    app = answered(app, {"choice": 0}, id=first["id"])
    assert len(list(ledger.events())) == 1


def test_the_project_page_shows_agreement_and_people_and_makes_a_version(
    opened: Open, make_project: Make, ledger: Ledger
) -> None:
    make_project(overlap=2)
    desk = studio.current().desk("sums")
    for person, wrong in ((ANNA, 0), (BEN, 3)):
        turn = 0
        while held := desk.open(person):
            texts = [response[-1].content for response in desk.shown(held[0])]
            right = int(texts[1].startswith("right"))
            desk.submit(person, held[0].id, Answer(better=right if turn >= wrong else 1 - right), active_ms=4000)
            turn += 1
    app = opened("agreement_page", LEA)
    assert not app.exception
    assert {metric.label: metric.value for metric in app.metric}["two people say the same"] == "75%"
    app = opened("project_page", LEA)
    assert not app.exception
    metrics = {metric.label: metric.value for metric in app.metric}
    assert metrics["answers of 24"] == "24"
    app = _press(app, "Make the labels a dataset version")
    assert "sums-labels@v1" in _texts(app)


def test_my_work_shows_what_a_lead_wrote_about_an_answer(opened: Open, make_project: Make, ledger: Ledger) -> None:
    make_project()
    desk = studio.current().desk("sums")
    (hold,) = desk.open(ANNA)
    desk.submit(ANNA, hold.id, Answer(better=0))
    event = desk.history(ANNA)[0].event
    assert event is not None
    write_review(ledger, "sums", LEA, event=event, rater=ANNA.name, decision="commented", comment="see rule 3")
    assert "see rule 3" in _texts(opened("my_work"))
    assert "rule 3" not in _texts(opened("my_work", BEN))


def test_my_work_takes_an_answer_back(opened: Open, make_project: Make, ledger: Ledger) -> None:
    make_project()
    desk = studio.current().desk("sums")
    (hold,) = desk.open(ANNA)
    desk.submit(ANNA, hold.id, Answer(better=0))
    app = _press(opened("my_work"), "Take it back")
    assert not app.exception
    assert desk.history(ANNA) == []


def test_an_adjudicator_sees_every_vote_and_reason_and_what_the_models_said(
    opened: Open, make_project: Make, ledger: Ledger
) -> None:
    project = make_project(overlap=2, ask_rationale=True)
    desk = project.desk(ledger)
    for person in (ANNA, BEN):
        (hold,) = desk.open(person)  # both see the pair in another order, and choose what stands first
        desk.submit(person, hold.id, Answer(better=0, rationale=f"{person.name} says so"))
    second = create_adjudication(ledger, project, LEA)
    with open_warehouse() as connection:
        sync(connection, ledger)
    app = opened("annotate", LEA)
    assert app.selectbox[0].value == "sums"  # nobody lands in an adjudication
    app.selectbox[0].set_value(second.name).run()
    table = app.dataframe[0].value.dropna(subset=["why"])  # the data's own label is a vote too, without a reason
    assert sorted(table["why"]) == ["anna says so", "ben says so"]
    assert set(table["preferred"]) == {"A", "B"}


def test_events_reach_the_warehouse_while_the_studio_runs(make_project: Make, ledger: Ledger) -> None:
    desk = make_project().desk(ledger)
    (hold,) = desk.open(ANNA)
    desk.submit(ANNA, hold.id, Answer(better=0))
    with merging(ledger, every_s=0.05):
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with open_warehouse() as connection:
                merged = connection.execute("SELECT count(*) FROM judgment WHERE extra IS NOT NULL").fetchall()[0][0]
            if merged:
                break
            time.sleep(0.1)
    assert merged == 1


def test_a_lead_makes_the_adjudication_and_lets_people_in_on_the_page(
    opened: Open, make_project: Make, ledger: Ledger
) -> None:
    project = make_project(overlap=2)
    desk = project.desk(ledger)
    for person in (ANNA, BEN):
        (hold,) = desk.open(person)  # both see the pair in another order, and choose what stands first
        desk.submit(person, hold.id, Answer(better=0))
        add_person(ledger, person.name, role=person.role)
    app = _press(opened("agreement_page", LEA), "Adjudicate what people disagree on")
    assert not app.exception
    assert "sums-disputes: 1 items" in _texts(app)
    app = opened("people_page", LEA)
    next(one for one in app.selectbox if one.label == "Project").set_value("sums-disputes").run()
    next(one for one in app.multiselect if one.label == "Who").set_value(["ben"])
    assert not _press(app, "Change members").exception
    assert members(ledger, "sums-disputes") == {"ben": "adjudicator"}


def test_known_items_are_chosen_by_a_press_each(opened: Open, make_project: Make, ledger: Ledger) -> None:
    make_project(gold_share=0.3)
    app = opened("known_page", LEA)
    assert "0 known items" in _texts(app)
    app = _press(app, "A is right")
    assert not app.exception
    assert "1 new known items" in _texts(app)
    assert "1 known items" in _texts(app)


def test_the_agreement_page_shows_what_the_krippendorff_package_gives_for_the_exported_answers(
    opened: Open, make_project: Make, ledger: Ledger
) -> None:
    krippendorff = pytest.importorskip("krippendorff")
    project = make_project(overlap=3)
    desk, draw = project.desk(ledger), random.Random(4)
    for person in (ANNA, BEN, CARA):
        while held := desk.open(person):
            right = [response[-1].content.startswith("right") for response in desk.shown(held[0])].index(True)
            better = draw.choice((right, right, 1 - right, None))
            desk.submit(
                person, held[0].id, Answer(better=better, strength=None if better is None else draw.randint(1, 3))
            )
    app = opened("agreement_page", LEA)
    metrics = {metric.label: metric.value for metric in app.metric}
    table: dict[str, dict[int, float]] = {}
    for line in answers_jsonl(ledger, "sums", desk.items, studio.current().work("sums").frame()).splitlines():
        answer = json.loads(line)
        side = answer["ranks"][0] - answer["ranks"][1]
        table.setdefault(answer["rater"], {})[answer["item"]] = side * (answer["strength"] or 1)
    ratings = [[row.get(item, math.nan) for item in range(12)] for row in table.values()]
    signs = [[math.nan if math.isnan(one) else (one > 0) - (one < 0) for one in row] for row in ratings]
    for level, data in (("nominal", signs), ("ordinal", ratings)):
        theirs = krippendorff.alpha(reliability_data=data, level_of_measurement=level)
        assert metrics[f"alpha, {level}"] == f"{theirs:.3f}"


def test_a_lead_edits_the_task_and_sees_it_as_annotators_will(opened: Open, make_project: Make, ledger: Ledger) -> None:
    make_project(guidelines="Truth first.")
    app = opened("task_page", LEA)
    next(one for one in app.text_input if one.label == "Question").set_value("Which is *truer*?").run()
    next(one for one in app.toggle if one.label == "Show it as annotators will see it").set_value(True).run()
    assert not app.exception
    assert "Which is *truer*?" in _texts(app)
    app = _press(app, "Use the changed task")
    assert studio.current().project("sums").task.question == "Which is *truer*?"
    assert studio.current().desk("sums").open(ANNA)
    assert "changed\\: question" in _texts(app)


def test_an_aspect_that_cannot_be_read_is_a_sentence_on_the_page(opened: Open, make_project: Make) -> None:
    make_project(kind="ratings", aspects=(Aspect(name="truth", question="?"),))
    app = opened("task_page", LEA)
    next(one for one in app.text_area if one.label.startswith("Aspects")).set_value("truth | ? | low | high").run()
    assert not app.exception
    assert any("whole numbers" in error.value for error in app.error)


def test_items_are_reserved_and_people_invited_on_the_page(opened: Open, make_project: Make, ledger: Ledger) -> None:
    make_project()
    add_person(ledger, "anna", role="annotator")
    app = opened("people_page", LEA)
    next(one for one in app.text_input if one.label == "Invite annotators").set_value("dora, lea")
    app = _press(app, "Make their links")
    assert [code.value.partition("token=")[1] for code in app.code] == ["token="]
    assert any("lea has an account already" in error.value for error in app.error)
    next(one for one in app.multiselect if one.label == "For").set_value(["anna"])
    next(one for one in app.text_input if one.label == "Items by number").set_value("3, x")
    app = _press(app, "Reserve them")
    assert any("whole numbers" in error.value for error in app.error)
    next(one for one in app.multiselect if one.label == "For").set_value(["anna"])
    next(one for one in app.text_input if one.label == "Items by number").set_value("3, 7")
    app = _press(app, "Reserve them")
    assert not app.exception
    assert {hold.item for hold in studio.current().desk("sums").open(ANNA, ahead=2)} == {3, 7}


def test_a_suggestion_is_shown_after_the_own_choice_which_may_be_kept(
    opened: Open, make_project: Make, ledger: Ledger
) -> None:
    project = make_project(suggestions="after", suggestion_share=1.0)
    write_suggestions(project.folder, {item: {"ranks": [0, 0]} for item in range(12)}, source="model m")
    app = opened("annotate")
    assert "Suggested" not in _texts(app)
    before = forms(app)[0]["id"]
    app = _press(app, "A better")
    assert "You said: A is better. Suggested: tie." in _texts(app).replace("\\", "")
    assert "model m" not in _texts(app)
    assert forms(app)[0]["id"] != before
    assert not list(ledger.events(kinds=["judgment"]))
    app = _press(app, "Keep mine")
    app = _press(app, "tie")
    assert "Suggested" not in _texts(app)
    extras = [recorded.event.payload["extra"] for recorded in ledger.events(kinds=["judgment"])]
    assert [(extra["seen"], extra["followed"]) for extra in extras] == [(True, False), (False, True)]
    assert "follow, drawn to see it" in str([one.label for one in opened("agreement_page", LEA).metric])


def test_an_edit_begins_with_its_suggestion_where_the_task_says_so(
    opened: Open, make_project: Make, ledger: Ledger
) -> None:
    project = make_project(kind="edit", suggestions="prefilled", suggestion_share=1.0)
    edit = {"edit": [{"role": "assistant", "content": "a better text"}], "edited": 0}
    write_suggestions(project.folder, dict.fromkeys(range(12), edit), source="model m")
    app = opened("annotate")
    assert "is a suggestion" in _texts(app)
    [shown] = forms(app)
    place = shown["draft"]["place"]
    assert shown["draft"]["texts"] == {str(place): "a better text"}
    app = answered(app, shown["draft"])
    (recorded,) = ledger.events(kinds=["edit"])
    assert recorded.event.payload["extra"]["followed"]


def test_a_lead_makes_suggestions_of_the_answers_of_another_project(
    opened: Open, make_project: Make, ledger: Ledger
) -> None:
    make_project("former", overlap=1)
    add_person(ledger, ANNA.name, role=ANNA.role)
    desk = studio.current().desk("former")
    while held := desk.open(ANNA):
        desk.submit(ANNA, held[0].id, Answer(better=0, strength=1))
    make_project("again", suggestions="after")
    page = opened("task_page", LEA)
    page.sidebar.selectbox(key="project").set_value("again")
    page = page.run()
    next(box for box in page.selectbox if box.label == "Suggest").set_value("answers of former")
    page = _press(page, "Make suggestions")
    assert "12 items have a suggestion" in _texts(page)
    assert len(Suggestions(studio.current().project("again").folder)) == 12
