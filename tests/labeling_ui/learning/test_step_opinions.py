"""A model's opinion on steps: asked once, kept from everyone who has not answered, and marked where it was seen."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from labeling_ui.desk.answers import Answer
from labeling_ui.desk.opinions import Opinions
from labeling_ui.learning import step_opinions
from labeling_ui.learning.step_opinions import ask_model
from labeling_ui.projects.labels import commit_labels
from labeling_ui.projects.people import Person, add_person
from labeling_ui.projects.project import Project
from labeling_ui.web import studio
from labeling_ui.web.api import routes
from labeling_ui.web.studio import Studio
from rmkit.errors import UsageError
from rmkit.ledger import Ledger
from rmkit.types import Candidates, ModelInfo, Score
from tests.labeling_ui.conftest import ANNA, BEN, LEA
from warehouse.store import open_warehouse

Make = Callable[..., Project]
SECRETS = ("prm-secret", "f1f2f3f4", "0.9721", "0.0317", "opinion")


class Prm:
    """A process model that finds the second step of every solution wrong, and cannot score the third problem."""

    def __init__(self, *, fingerprint: str = "f1f2f3f4" * 8, steps: bool = True) -> None:
        self.info = ModelInfo("prm", "process", "probability", pointwise=True, fingerprint=fingerprint)
        self.asked: list[str] = []
        self._steps = steps

    def score(self, batch: Sequence[Candidates]) -> list[list[Score]]:
        return [[self._score(item)] for item in batch]

    def compare(self, batch: Sequence[Candidates]) -> list[Any]:
        raise NotImplementedError

    def _score(self, item: Candidates) -> Score:
        self.asked.append(item.prompt[-1].content)
        [completion] = item.completions
        assert len(completion.step_ends) == 3
        if "2" in item.prompt[-1].content:
            return Score.failed("too long")
        return Score(0.0317, steps=(0.9721, 0.0317, 0.5) if self._steps else ())


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, ledger: Ledger) -> Callable[..., dict[str, object]]:
    def asked(project: Project, model: Prm | None = None) -> dict[str, object]:
        monkeypatch.setattr(step_opinions, "load_model", lambda name: model or Prm())
        return ask_model(ledger, project, "folder/prm-secret")

    return asked


def steps_project(make: Make, data: str, **options: Any) -> Project:
    return make("steps", data=data, **({"kind": "steps", "overlap": 2} | options))


def wrong(first: int | None) -> Answer:
    return Answer(first_wrong=first)


def test_an_opinion_is_for_who_has_answered_and_marks_what_they_say_after_it(
    ledger: Ledger, make_project: Make, solutions: str, ask: Callable[..., dict[str, object]]
) -> None:
    project = steps_project(make_project, solutions, repeat_share=0.4)
    summary = ask(project)
    assert (summary["items"], summary["asked"], summary["unscored"]) == (4, 4, 1)
    desk = project.desk(ledger)
    (hold,) = desk.open(ANNA)
    while "2" in desk.items[hold.item].prompt[-1].content:  # that one has none
        desk.submit(ANNA, hold.id, Answer(verdict="skip"))
        (hold,) = desk.open(ANNA)
    assert desk.opinion(ANNA, hold.id) is None
    desk.submit(ANNA, hold.id, Answer(verdict="skip"))
    assert desk.opinion(ANNA, hold.id) is None  # no answer, no opinion
    desk.undo(ANNA, hold.id)
    desk.submit(ANNA, hold.id, wrong(2))
    opinion = desk.opinion(ANNA, hold.id)
    assert opinion is not None
    assert (opinion.model, opinion.fingerprint[:8], opinion.steps) == ("prm-secret", "f1f2f3f4", (0.9721, 0.0317, 0.5))
    assert opinion.first_wrong == 1
    with pytest.raises(UsageError, match="does not hold"):
        desk.opinion(BEN, hold.id)
    desk.undo(ANNA, hold.id)
    assert desk.opinion(ANNA, hold.id) is None
    desk.submit(ANNA, hold.id, wrong(1))
    payloads = [one.event.payload for one in ledger.events(kinds=["judgment"])]
    mine = [one for one in payloads if one["extra"]["item"] == hold.item and "step_labels" in one]
    assert [one["suggestion_seen"] for one in mine] == [False, True]
    while held := desk.open(ANNA):  # nothing that the model spoke of comes again
        assert not held[0].slot.startswith("repeat")
        desk.submit(ANNA, held[0].id, wrong(None))
    commit_labels(ledger, project, LEA)
    with open_warehouse(read_only=True) as connection:
        stored = connection.execute("SELECT count(*) FROM judgment WHERE suggestion_seen").fetchone()
    assert stored == (1,)


def test_nothing_of_it_leaves_the_server_before_the_answer(
    ledger: Ledger, make_project: Make, solutions: str, ask: Callable[..., dict[str, object]]
) -> None:
    ask(steps_project(make_project, solutions))
    studio.use(Studio(ledger))
    try:
        client = TestClient(Starlette(routes=routes()))
        headers = [{"Authorization": f"Bearer {add_person(ledger, one, role='annotator')}"} for one in ("anna", "ben")]
        seen = {}
        while held := client.get("/api/projects/steps/next?ahead=3", headers=headers[0]).json():
            assert not any(secret in json.dumps(held) for secret in SECRETS)
            body = {"answer": {"first_wrong": 0}}
            answer = client.post(f"/api/projects/steps/answers/{held[0]['id']}", json=body, headers=headers[0]).json()
            seen[held[0]["prompt"][-1]["content"]] = answer["opinion"]
            undone = client.post(f"/api/projects/steps/undo/{held[0]['id']}", json={}, headers=headers[0])
            assert not any(secret in undone.text for secret in SECRETS)
            client.post(f"/api/projects/steps/answers/{held[0]['id']}", json=body, headers=headers[0])
            # who has answered nothing is shown nothing
            others = client.get("/api/projects/steps/next?ahead=5", headers=headers[1])
            assert len(others.json()) == 4
            assert not any(secret in others.text for secret in SECRETS)
        assert len(seen) == 4
        assert seen["Problem 2?"] == {
            "model": "prm-secret", "fingerprint": "f1f2f3f4" * 8, "scale": "probability", "steps": [],
            "unscored": "too long", "first_wrong": None,
        }  # fmt: skip
        assert (seen["Problem 1?"]["steps"], seen["Problem 1?"]["first_wrong"]) == ([0.9721, 0.0317, 0.5], 1)
    finally:
        studio.use(None)


def test_pages_show_it_beside_the_own_answer_only(
    ledger: Ledger, make_project: Make, solutions: str, ask: Callable[..., dict[str, object]]
) -> None:
    streamlit_testing = pytest.importorskip("streamlit.testing.v1")
    project = steps_project(make_project, solutions)
    ask(project)
    studio.use(Studio(ledger))

    def page(module: str, person: Person) -> tuple[str, list[str]]:
        """All that goes to the browser, and the labels of what folds."""
        add_person(ledger, person.name, role=person.role)
        script = f"from labeling_ui.web.pages import {module}\n{module}.page()"
        app = streamlit_testing.AppTest.from_string(script, default_timeout=30)
        app.session_state["person"] = person
        app.run()
        assert not app.exception
        sent = [str(element.proto) for element in app.main]
        sent += [str(json.loads(one.proto.json)) for one in app.get("bidi_component")]
        return "\n".join(sent), [one.label for one in app.expander]

    try:
        for module in ("annotate", "my_work"):
            sent, _ = page(module, ANNA)
            assert not any(secret in sent for secret in SECRETS)
        desk = studio.current().desk("steps")
        held = desk.open(ANNA, ahead=4)
        for hold in sorted(held, key=lambda hold: "1" in desk.items[hold.item].prompt[-1].content):
            if "2" not in desk.items[hold.item].prompt[-1].content:
                desk.submit(ANNA, hold.id, wrong(2))
        sent, folds = page("annotate", ANNA)
        assert r"Your last answer\: step 3 is wrong\. prm\-secret f1f2f3f4\: step 2 is wrong" in folds
        assert "step 2 · 0.03 · first wrong step: model" in sent
        assert "step 3 · 0.50 · first wrong step: you" in sent
        sent, _ = page("my_work", ANNA)
        assert sent.count("step 2 · 0.03") == 3
        sent, _ = page("annotate", BEN)
        assert not any(secret in sent for secret in SECRETS)
    finally:
        studio.use(None)


def test_a_model_is_asked_once_for_each_item_and_a_new_version_for_all(
    make_project: Make, solutions: str, ask: Callable[..., dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = steps_project(make_project, solutions)
    monkeypatch.setattr(step_opinions, "WINDOW", 1)
    monkeypatch.setattr(step_opinions, "STORE_EVERY_S", 0.0)

    class Broken(Prm):
        def score(self, batch: Sequence[Candidates]) -> list[list[Score]]:
            if len(self.asked) == 2:
                raise RuntimeError("killed")
            return super().score(batch)

    with pytest.raises(RuntimeError):
        ask(project, Broken())
    assert len(Opinions(project.folder)) == 2
    again = Prm()
    assert ask(project, again)["asked"] == 2
    assert len(again.asked) == 2
    other = Prm(fingerprint="0" * 64)
    assert ask(project, other)["asked"] == 4
    assert Opinions(project.folder).fingerprint == "0" * 64


def test_who_has_no_opinion_on_steps_is_refused(
    make_project: Make, solutions: str, ask: Callable[..., dict[str, object]]
) -> None:
    with pytest.raises(UsageError, match="scores whole answers and no steps"):
        ask(steps_project(make_project, solutions), Prm(steps=False))
    with pytest.raises(UsageError, match="sums is a pairwise project"):
        ask(make_project())


@pytest.fixture(autouse=True)
def no_studio() -> Iterator[None]:
    yield
    studio.use(None)


def test_values_that_are_no_probabilities_have_no_first_wrong_step() -> None:
    from labeling_ui.desk.opinions import Opinion
    from labeling_ui.web.opinion import in_words

    values = Opinion("m", "f" * 64, "rating", (-3.0, math.nan), None)
    assert values.first_wrong is None
    assert values.as_json()["steps"] == [-3.0, None]
    assert in_words(values) == "m ffffffff gave each step a number"
