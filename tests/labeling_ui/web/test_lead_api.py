"""The API for leads through its own Python client, against the application that serves it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from labeling_ui.client import StudioClient, StudioError
from labeling_ui.projects.people import add_key, add_person, by_token, keys, remove_key, remove_person
from labeling_ui.projects.project import Project
from labeling_ui.web import studio
from labeling_ui.web.api import EVERYONE, routes
from labeling_ui.web.lead_api import OPERATIONS
from labeling_ui.web.studio import Studio
from rmkit.errors import UsageError
from rmkit.ledger import Ledger
from tests.labeling_ui.conftest import LEA

Make = Callable[..., Project]


@pytest.fixture
def app(ledger: Ledger, make_project: Make) -> Iterator[TestClient]:
    make_project(overlap=2)
    studio.use(Studio(ledger))
    yield TestClient(Starlette(routes=routes()))
    studio.use(None)


def _client(app: TestClient, token: str) -> StudioClient:
    client = StudioClient("http://testserver", token=token)
    client._http = TestClient(app.app, headers={"Authorization": f"Bearer {token}"})  # type: ignore[assignment]
    return client


def _right(item: dict[str, list[list[dict[str, str]]]]) -> int:
    return [response[0]["content"].startswith("right") for response in item["responses"]].index(True)


def test_a_program_makes_a_project_has_it_answered_reviewed_and_committed(app: TestClient, ledger: Ledger) -> None:
    lea = _client(app, add_person(ledger, "lea", role="lead"))
    project = lea.create_project(
        "two", data="sums", task={"name": "t", "kind": "pairwise", "title": "T", "question": "Q?"}
    )
    assert (project["items"], project["data"]) == (12, "sums@v1")
    anna, ben = (_client(app, lea.invite(name)) for name in ("anna", "ben"))
    for who, n_wrong in ((anna, 0), (ben, 2)):
        turn = 0
        while items := who.next("two"):
            right = _right(items[0])
            who.answer("two", items[0]["id"], {"better": right if turn >= n_wrong else 1 - right, "strength": 2})
            turn += 1
    assert len(list(lea.answers("two"))) == lea.project("two")["progress"]["answered"] == 24
    [first, *_] = lea.answers("two", rater="ben")
    lea.review("two", first["event"], "returned", "look again")
    assert len(list(lea.answers("two", rater="ben"))) == 11
    [again] = ben.next("two")
    ben.answer("two", again["id"], {"better": _right(again), "strength": 2})
    [question] = lea.agreement("two")["questions"]
    assert (question["things"], question["same"]["right"], question["same"]["n"]) == (12, 11, 12)
    assert {one["name"]: one["answers"] for one in lea.people("two")} == {"anna": 12, "ben": 12}
    changed = {**lea.project("two")["task"], "overlap": 3}
    lea.change_task("two", changed, why="more")
    assert lea.project("two")["progress"]["wanted"] == 36
    assert lea.commit("two") == "two-labels@v1"
    disputes = lea.call("POST", "/projects/two/adjudicate", {})
    assert disputes == {"name": "two-disputes", "items": 1}
    lea.call("PUT", "/projects/two/members", {"person": "anna"})
    assert lea.project("two")["members"] == {"anna": "annotator"}
    lea.call("PUT", "/projects/two/rules", {"rules": [{"people": ["anna"], "first": 0, "last": 3}]})
    lea.call("POST", "/projects/two/pause", {"person": "ben", "reason": "too fast"})
    assert lea.project("two")["paused"] == {"ben": "too fast"}


@pytest.mark.parametrize(
    ("method", "path", "body", "message"),
    [
        ("POST", "/projects", {"name": "x", "dta": "sums"}, "did you mean 'data'?"),
        ("POST", "/projects", {"name": "x", "data": "sums", "task": "/etc/passwd"}, "task '/etc/passwd'"),
        ("POST", "/projects", {"name": "../x", "data": "sums"}, "a project's name has letters"),
        ("POST", "/projects/sums/reviews", {"event": "gone", "decision": "accepted"}, "no answer of sums now"),
        ("POST", "/projects/sums/reviews", {"event": "gone", "decision": "eaten"}, "decision: Input should be"),
        ("PUT", "/projects/sums/rules", {"rules": [{"who": ["a"]}]}, "rules: "),
        ("PUT", "/projects/sums/rules", {"rules": [{"people": []}]}, "at least one person or group"),
        ("POST", "/projects/sums/known", {}, "send either answers or dataset"),
        ("POST", "/projects/sums/pause", {"person": "anna", "reason": ""}, "reason"),
        ("GET", "/projects/sums/agreement", {"x": 1}, "takes no body"),
        ("GET", "/projects/nums/people", None, "no project 'nums'"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(
    app: TestClient, ledger: Ledger, method: str, path: str, body: dict[str, object] | None, message: str
) -> None:
    lea = _client(app, add_person(ledger, "lea", role="lead"))
    with pytest.raises(StudioError) as refused:
        lea.call(method, path, body)
    assert (refused.value.status, message in str(refused.value)) == (400, True), str(refused.value)


def test_no_annotator_and_nobody_without_a_token_leads(app: TestClient, ledger: Ledger) -> None:
    token = add_person(ledger, "anna", role="annotator")
    for one in OPERATIONS:
        path = one.path.format(project="sums")
        for header, status in ((f"Bearer {token}", 403), ("Bearer wrong", 403), ("", 401)):
            response = app.request(one.method, path, json={}, headers={"Authorization": header})
            assert (one.path, response.status_code) == (one.path, status)
            assert "wrong: " not in response.text
    assert ledger.last_seq() == 0


def test_the_document_says_what_is_served(app: TestClient) -> None:
    message = app.get("/api/openapi.json").json()
    served = {(one.path, one.method.lower()) for one in (*EVERYONE, *OPERATIONS)}
    assert {(path, method) for path, methods in message["paths"].items() for method in methods} == served
    refs = {
        part["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        for methods in message["paths"].values()
        for part in methods.values()
        if "requestBody" in part
    }
    assert refs <= set(message["components"]["schemas"])
    assert "Marked" in message["components"]["schemas"]  # a schema that another one names
    missing = app.get("/api/project/sums")
    assert (missing.status_code, missing.headers["content-type"]) == (404, "application/json")


def test_each_program_has_a_token_of_its_own(ledger: Ledger) -> None:
    main = add_person(ledger, "lea", role="lead")
    script = add_key(ledger, LEA, "nightly")
    assert by_token(ledger, script) == by_token(ledger, main) == LEA
    assert keys(ledger, LEA) == ["nightly"]
    remove_key(ledger, LEA, "nightly")
    with pytest.raises(Exception, match="opens nothing"):
        by_token(ledger, script)
    with pytest.raises(UsageError, match="no token 'nightly'"):
        remove_key(ledger, LEA, "nightly")
    other = add_key(ledger, LEA, "other")
    remove_person(ledger, "lea")
    add_person(ledger, "lea", role="lead")
    with pytest.raises(Exception, match="opens nothing"):
        by_token(ledger, other)


def test_suggestions_are_made_seen_after_the_own_choice_and_measured(app: TestClient, ledger: Ledger) -> None:
    lea = _client(app, add_person(ledger, "lea", role="lead"))
    anna = _client(app, lea.invite("anna"))
    task = {"name": "t", "kind": "pairwise", "title": "T", "question": "Q?", "overlap": 1, "gold_share": 0.0}
    lea.create_project("former", data="sums", task=task)
    while items := anna.next("former"):
        anna.answer("former", items[0]["id"], {"better": _right(items[0]), "strength": 1})
    lea.create_project("again", data="sums", task={**task, "suggestions": "after", "suggestion_share": 1.0})
    for body, said in (({}, "either"), ({"model": "../secret"}, "unknown model"), ({"answers": "no"}, "no project")):
        with pytest.raises(StudioError, match=said):
            lea.call("PUT", "/projects/again/suggestions", body)
    assert lea.call("PUT", "/projects/again/suggestions", {"answers": "former"}) == {"items": 12}
    while items := anna.next("again"):
        item, right = items[0], _right(items[0])
        assert "suggested" not in item
        shown = anna.call("POST", f"/projects/again/first/{item['id']}", {"answer": {"better": None}})
        if shown["suggested"]:  # not of the repeats
            assert shown["suggested"]["ranks"].index(0) == right
        anna.answer("again", item["id"], {"better": right, "strength": 1})
    report = lea.call("GET", "/projects/again/suggestions")
    assert (report["items"], report["source"]) == (12, "answers of former")
    effect = report["effect"]
    assert (effect["moved"]["right"], effect["moved"]["n"], effect["effect"]) == (12, 12, None)
