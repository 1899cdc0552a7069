"""The REST API as a program uses it, in the application that also serves the pages."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from labeling_ui import studio
from labeling_ui.api import COOKIE, routes
from labeling_ui.people import add_person, remove_person
from labeling_ui.project import Project
from labeling_ui.studio import Studio
from rmkit.ledger import Ledger

Make = Callable[..., Project]


@pytest.fixture
def client(ledger: Ledger, make_project: Make) -> Iterator[TestClient]:
    make_project()
    studio.use(Studio(ledger))
    yield TestClient(Starlette(routes=routes()), follow_redirects=False)
    studio.use(None)


@pytest.fixture
def anna(client: TestClient, ledger: Ledger) -> TestClient:
    client.headers["Authorization"] = f"Bearer {add_person(ledger, 'anna', role='annotator')}"
    return client


def _key(response: httpx.Response) -> str:
    return str(response.json()[0]["key"])


def test_an_item_is_fetched_answered_undone_and_answered_again(anna: TestClient, ledger: Ledger) -> None:
    assert anna.get("/api/projects").json()[0]["progress"]["items"] == 12
    held = anna.get("/api/projects/sums/next?ahead=2")
    assert len(held.json()) == 2
    path = f"/api/projects/sums/{{}}/{_key(held)}"
    assert anna.put(path.format("drafts"), json={"rationale": "hm"}).status_code == 200
    assert anna.get("/api/projects/sums/next").json()[0]["draft"] == {"rationale": "hm"}
    body = {"answer": {"better": 0, "strength": 1}, "active_ms": 1200, "wall_ms": 3000}
    first = anna.post(path.format("answers"), json=body).json()["event"]
    assert anna.post(path.format("answers"), json=body).json()["event"] == first
    assert anna.post(path.format("undo")).json()["key"] == _key(held)
    assert anna.post(path.format("answers"), json=body).json()["event"] != first
    second = anna.get("/api/projects/sums/next").json()[0]["key"]
    assert anna.post(f"/api/projects/sums/release/{second}").json() == {}
    assert anna.get("/api/projects/sums/next").json()[0]["key"] != second


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        (b"{", 400, "Expecting"),
        (b"[]", 400, "must be a JSON object"),
        (b'{"answer": {"better": 7}}', 400, "place 7 was not shown"),
        (b'{"answer": {"better": 0}, "active_ms": -1}', 400, "active_ms is a whole number"),
        (b'{"answer": {"html": "<script>"}}', 400, "html: Extra inputs"),
        (b"x" * 1_000_001, 413, "larger than 1000000 bytes"),
    ],
)
def test_a_bad_body_is_refused_and_nothing_is_written(
    anna: TestClient, ledger: Ledger, body: bytes, status: int, told: str
) -> None:
    key = _key(anna.get("/api/projects/sums/next"))
    response = anna.post(f"/api/projects/sums/answers/{key}", content=body)
    assert (response.status_code, told in response.json()["error"]) == (status, True)
    assert ledger.last_seq() == 0


ROUTES = (
    ("GET", "/api/projects"),
    ("GET", "/api/projects/sums/next"),
    ("POST", "/api/projects/sums/answers/0000000/0"),
    ("POST", "/api/projects/sums/undo/0000000/0"),
    ("POST", "/api/projects/sums/release/0000000/0"),
    ("PUT", "/api/projects/sums/drafts/0000000/0"),
)


def test_every_route_is_in_the_table() -> None:
    table = {
        (method, re.sub(r"sums", "{project}", path).replace("0000000/0", "{item}/{slot}")) for method, path in ROUTES
    }
    served = {
        (next(iter(set(route.methods or ()) - {"HEAD"})), route.path) for route in routes() if "api" in route.path
    }
    assert table == served


@pytest.mark.parametrize("header", [None, "Bearer", "Bearer wrong", "Basic abc", "Bearer GONE"])
@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_without_a_valid_token_nothing_is_said_or_written(
    client: TestClient, ledger: Ledger, header: str | None, method: str, path: str
) -> None:
    gone = add_person(ledger, "gone", role="admin")
    remove_person(ledger, "gone")
    headers = {} if header is None else {"Authorization": header.replace("GONE", gone)}
    response = client.request(method, path, headers=headers)
    assert response.status_code in (401, 403)
    assert "sums" not in response.text
    assert (ledger.last_seq(), ledger.record("assignment", "sums/0000000/0")) == (0, None)


@pytest.mark.parametrize(("method", "path"), ROUTES[2:])
def test_nobody_touches_an_item_that_another_person_holds(
    anna: TestClient, ledger: Ledger, method: str, path: str
) -> None:
    held = _key(anna.get("/api/projects/sums/next"))
    before = ledger.record("assignment", f"sums/{held}")
    ben = {"Authorization": f"Bearer {add_person(ledger, 'ben', role='admin')}"}
    response = anna.request(method, path.replace("0000000/0", held), json={"answer": {"better": 0}}, headers=ben)
    assert (response.status_code, "ben does not hold" in response.json()["error"]) == (400, True)
    assert (ledger.last_seq(), ledger.record("assignment", f"sums/{held}")) == (0, before)


def test_a_link_becomes_a_cookie_that_scripts_cannot_read(client: TestClient, ledger: Ledger) -> None:
    token = add_person(ledger, "anna", role="annotator")
    response = client.get(f"/enter?token={token}")
    assert (response.status_code, response.headers["location"]) == (303, "/")
    cookie = response.headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}={token}")
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert client.get("/enter?token=nonsense").status_code == 403
    assert 'type="password"' in client.get("/enter").text
    assert client.post("/enter", data={"token": token}).status_code == 303
    left = client.get("/leave")
    assert (left.status_code, left.headers["location"]) == (303, "/")
    assert f'{COOKIE}=""' in left.headers["set-cookie"]


def test_unknown_projects_and_questions_are_told(anna: TestClient) -> None:
    assert "no project 'nums'" in anna.get("/api/projects/nums/next").json()["error"]
    assert "from 1 to 5" in anna.get("/api/projects/sums/next?ahead=99").json()["error"]
