"""The REST API as a program uses it, in the application that also serves the pages."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from labeling_ui.projects.people import add_person, remove_person
from labeling_ui.projects.project import Project
from labeling_ui.web import studio
from labeling_ui.web.api import COOKIE, routes
from labeling_ui.web.guard import Guard
from labeling_ui.web.lead_api import OPERATIONS
from labeling_ui.web.studio import Studio
from rmkit.errors import UsageError
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
    return str(response.json()[0]["id"])


def test_an_item_is_fetched_answered_undone_and_answered_again(anna: TestClient, ledger: Ledger) -> None:
    assert anna.get("/api/projects").json()[0]["progress"] == {"yours": 0}
    held = anna.get("/api/projects/sums/next?ahead=2")
    assert len(held.json()) == 2
    path = f"/api/projects/sums/{{}}/{_key(held)}"
    assert anna.put(path.format("drafts"), json={"rationale": "hm"}).status_code == 200
    assert anna.get("/api/projects/sums/next").json()[0]["draft"] == {"rationale": "hm"}
    body = {"answer": {"better": 0, "strength": 1}, "active_ms": 1200, "wall_ms": 3000}
    first = anna.post(path.format("answers"), json=body).json()["event"]
    assert anna.post(path.format("answers"), json=body).json()["event"] == first
    assert anna.post(path.format("undo")).json()["id"] == _key(held)
    assert anna.post(path.format("answers"), json=body).json()["event"] != first
    second = anna.get("/api/projects/sums/next").json()[0]["id"]
    assert anna.post(f"/api/projects/sums/release/{second}").json() == {}
    assert anna.get("/api/projects/sums/next").json()[0]["id"] != second


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        (b"{", 400, "Expecting"),
        (b"[]", 400, "must be a JSON object"),
        (b"[" * 100_000, 400, "nested too deeply"),
        (b'{"answer": {"better": 0}, "active_ms": 1e400}', 400, "active_ms is a whole number"),
        (b"", 400, "the body has no answer"),
        (b"{}", 400, "the body has no answer"),
        (b'{"answer": {}}', 400, "says better; nothing was said"),
        (b'{"answer": null}', 400, "expected a JSON object"),
        (b'{"anwser": {"better": 0}}', 400, "did you mean 'answer'?"),
        (b'{"answer": {"better": 0}, "activ_ms": 1}', 400, "did you mean 'active_ms'?"),
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
    ("POST", "/api/projects/sums/answers/0000000"),
    ("POST", "/api/projects/sums/first/0000000"),
    ("POST", "/api/projects/sums/undo/0000000"),
    ("POST", "/api/projects/sums/release/0000000"),
    ("PUT", "/api/projects/sums/drafts/0000000"),
)


def test_every_route_is_in_the_table() -> None:
    table = {(method, re.sub(r"sums", "{project}", path).replace("0000000", "{id}")) for method, path in ROUTES}
    table |= {(one.method, one.path) for one in OPERATIONS}
    served = {
        (next(iter(set(route.methods or ()) - {"HEAD"})), route.path)
        for route in routes()
        if "api" in route.path and route.path not in ("/api/{path:path}", "/api/openapi.json")
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
    assert (ledger.last_seq(), ledger.record("assignment", "sums/0000000")) == (0, None)


@pytest.mark.parametrize(("method", "path"), ROUTES[2:])
def test_nobody_touches_an_item_that_another_person_holds(
    anna: TestClient, ledger: Ledger, method: str, path: str
) -> None:
    held = _key(anna.get("/api/projects/sums/next"))
    (before,) = ledger.records("assignment", prefix="sums/")
    ben = {"Authorization": f"Bearer {add_person(ledger, 'ben', role='admin')}"}
    body = {"answer": {"better": 0}} if "answers" in path or "first" in path else {}
    response = anna.request(method, path.replace("0000000", held), json=body, headers=ben)
    assert (response.status_code, "ben does not hold" in response.json()["error"]) == (400, True)
    assert (ledger.last_seq(), [*ledger.records("assignment", prefix="sums/")]) == (0, [before])


def test_a_link_becomes_a_cookie_that_scripts_cannot_read(client: TestClient, ledger: Ledger) -> None:
    token = add_person(ledger, "anna", role="annotator")
    shown = client.get(f"/enter?token={token}")
    assert (shown.status_code, "set-cookie" in shown.headers) == (200, False)
    assert f'<input id="token" name="token" type="hidden" value="{token}"' in shown.text
    assert "Work as anna" in shown.text
    assert "frame-ancestors 'none'" in shown.headers["content-security-policy"]
    response = client.post("/enter", data={"token": token})
    assert (response.status_code, response.headers["location"]) == (303, "/")
    cookie = response.headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}={token}")
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    wrong = client.get("/enter?token=nonsense")
    assert (wrong.status_code, wrong.headers["content-type"]) == (403, "text/html; charset=utf-8")
    assert "This link opens nothing" in wrong.text
    assert 'type="password"' in client.get("/enter").text
    left = client.get("/leave")
    assert (left.status_code, left.headers["location"]) == (303, "/")
    assert f'{COOKIE}=""' in left.headers["set-cookie"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec-fetch-site": "cross-site", "origin": "http://evil.example"}, 403),
        ({"sec-fetch-site": "same-site", "origin": "http://other.testserver"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://testserver:1"}, 403),
        ({"origin": "http://testserver"}, 303),
        ({"sec-fetch-site": "same-origin", "origin": "https://studio.example"}, 303),  # a proxy that changes Host
        ({"sec-fetch-site": "none"}, 303),
        ({}, 303),
    ],
)
def test_no_page_of_another_site_signs_anybody_in_or_out(
    client: TestClient, ledger: Ledger, headers: dict[str, str], status: int
) -> None:
    """A link of an attacker's page made the visitor work under the attacker's name."""
    token = add_person(ledger, "mallory", role="annotator")
    response = client.post("/enter", data={"token": token}, headers=headers)
    assert (response.status_code, COOKIE in response.headers.get("set-cookie", "")) == (status, status == 303)
    left = client.get("/leave", headers=headers)
    assert (left.status_code, COOKIE in left.headers.get("set-cookie", "")) == (status, status == 303)
    assert "set-cookie" not in client.get(f"/enter?token={token}", headers=headers).headers


def test_a_name_is_no_markup_and_no_control_character(client: TestClient, ledger: Ledger) -> None:
    token = add_person(ledger, '"><b>anna', role="annotator")
    assert "Work as &quot;&gt;&lt;b&gt;anna" in client.get(f"/enter?token={token}").text
    for name in ("anna\x1b[2J", "an\nna", "anna\u202e"):
        with pytest.raises(UsageError, match="no control characters"):
            add_person(ledger, name, role="annotator")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 403),
        ({"host": "127.0.0.1:8501", "origin": "http://evil.example"}, 403),
        ({"host": "127.0.0.1:8501"}, 200),
        ({"host": "studio.team.example", "origin": "https://studio.team.example"}, 200),
    ],
)
def test_on_loopback_the_studio_answers_under_its_own_names(
    ledger: Ledger, pairs: str, headers: dict[str, str], status: int
) -> None:
    guarded = Guard(Starlette(routes=routes()), hosts=["studio.team.example"])
    assert TestClient(guarded).get("/enter", headers=headers).status_code == status
    assert TestClient(Guard(Starlette(routes=routes()))).get("/enter", headers=headers).status_code == 200


def test_pages_may_ask_no_other_host(ledger: Ledger, home: Path) -> None:
    """Streamlit's own page, as the studio serves it."""
    pytest.importorskip("streamlit")
    from labeling_ui.web.server import application

    with TestClient(application(ledger, hosts=()), base_url="http://localhost:8501") as client:
        page = client.get("/")
        assert page.status_code == 200
        policy = page.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "http" not in policy
        assert not re.search(r"""(src|href)=["'](https?:)?//""", page.text)
        assert client.get("/", headers={"host": "evil.example"}).status_code == 403


def test_unknown_projects_and_questions_are_told(anna: TestClient) -> None:
    assert "no project 'nums'" in anna.get("/api/projects/nums/next").json()["error"]
    assert "from 1 to 5" in anna.get("/api/projects/sums/next?ahead=99").json()["error"]


def test_what_is_typed_is_kept_by_the_id_that_only_the_holder_knows(anna: TestClient) -> None:
    (held,) = anna.get("/api/projects/sums/next").json()
    page = TestClient(anna.app)  # the browser's own call carries no token

    def put(id: str, body: bytes) -> tuple[int, object]:
        status = page.put(f"/drafts/sums/{id}", content=body).status_code
        return status, anna.get("/api/projects/sums/next").json()[0]["draft"]

    assert put(held["id"], b'{"text": "half a sent"}') == (204, {"text": "half a sent"})
    for id, body in (("0" * 32, b'{"text": "x"}'), (held["id"], b"[1]"), (held["id"], b"{"), (held["id"], b"[" * 9999)):
        assert put(id, body) == (204, {"text": "half a sent"})
    assert put(held["id"], b'{"text": "' + b"x" * 1_000_000 + b'"}') == (413, {"text": "half a sent"})
