"""The REST API beside the pages, in the same process and through the same desk.

    GET  /api/projects                          projects with their progress
    GET  /api/projects/NAME/next?ahead=2        items to judge now, responses in the order to show
    POST /api/projects/NAME/answers/ID          {"answer": {...}, "active_ms": 1, "wall_ms": 2} -> {"event": id}, with
                                                what a model thinks of the steps as `opinion` where one was asked
    POST /api/projects/NAME/first/ID            {"answer": {...}} -> {"suggested": what is suggested beside it, or null}
    POST /api/projects/NAME/undo/ID             take the answer back
    POST /api/projects/NAME/release/ID          give the item back unanswered
    PUT  /api/projects/NAME/drafts/ID           keep what is written so far
    GET  /api/openapi.json                      all calls, those for leads too (`lead_api`); without a token

Every call carries `Authorization: Bearer TOKEN`. Errors are {"error": text} with 400, 401, 403, 404, 409, 413 or 503.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Awaitable, Callable, Collection, Mapping
from html import escape
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from labeling_ui.desk.answers import Answer, read_answer
from labeling_ui.projects.members import takes_part
from labeling_ui.projects.people import ForbiddenError, Person, by_token
from labeling_ui.projects.project import broken_projects, projects
from labeling_ui.web import activity, answer_form, studio
from labeling_ui.web.lead_api import OPERATIONS, Body, Operation, call
from labeling_ui.web.openapi import document
from rmkit.errors import BusyError, ConflictError, DataError, RmkitError, StoreError, unknown

COOKIE = "rmkit_label"
MAX_BODY = 1_000_000  # bytes
MAX_AHEAD = 5
FORM = """<!doctype html><html lang="en"><title>rmkit studio</title>
<style>:root{{color-scheme:light dark}}body{{background:Canvas;color:CanvasText;
font:1rem system-ui;display:grid;place-items:center;height:90vh}}
form{{display:grid;gap:.8rem;width:min(22rem,88vw)}}input,button{{font:inherit;padding:.6rem .8rem;border-radius:.4rem;
border:1px solid #767676;box-sizing:border-box;width:100%}}button{{background:#0b5cad;color:#fff;cursor:pointer}}
h1{{font-size:1.4rem;margin:0}}</style>
<main><form method="post" action="/enter"><h1>rmkit studio</h1><label for="token">{label}</label>
<input id="token" name="token" type="{kind}" value="{token}" size="36" required autofocus>
<button>Enter</button></form></main>"""
PAGE = """<!doctype html><html lang="en"><title>rmkit studio</title>
<style>:root{{color-scheme:light dark}}body{{background:Canvas;color:CanvasText;
font:1rem system-ui;max-width:34rem;margin:20vh auto;
padding:0 1rem;line-height:1.5}}</style>
<main><h1>{title}</h1><p>{text}</p>
<p><a href="/enter">Enter a token</a> or <a href="/">open the studio</a></p></main>"""
FORM_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    "frame-ancestors 'none'",
    "referrer-policy": "same-origin",  # the address holds the token; none at all would hide the form's own origin too
    "cache-control": "no-store",
}

Handler = Callable[[Request, Person, dict[str, Any]], Any]


def routes() -> list[Route]:
    """The API's routes, /enter, which turns a token into a cookie, and /leave, which takes the cookie away."""
    return [
        *(Route(one.path, _guarded(one.handler), methods=[one.method]) for one in EVERYONE),
        *(Route(one.path, _for_lead(one), methods=[one.method]) for one in OPERATIONS),
        Route("/api/openapi.json", _openapi),
        Route("/api/{path:path}", _unknown, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
        Route(activity.PATH, _activity, methods=["POST"]),
        Route(answer_form.PATH, _typed, methods=["PUT"]),
        Route("/enter", _enter, methods=["GET", "POST"]),
        Route("/leave", _leave),
    ]


def _guarded(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY:
                return _error(413, f"the body is larger than {MAX_BODY} bytes")
        return await run_in_threadpool(_answered, handler, request, bytes(body))

    return endpoint


def _for_lead(operation: Operation) -> Callable[[Request], Awaitable[Response]]:
    return _guarded(lambda request, person, values: call(operation, request, person, values))


async def _openapi(request: Request) -> Response:
    return JSONResponse(document(OPERATIONS, EVERYONE))


def _answered(handler: Handler, request: Request, body: bytes) -> Response:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        return _error(401, "send Authorization: Bearer TOKEN")
    try:
        person = by_token(studio.current().ledger, token.strip())
        values = json.loads(body) if body else {}
        if not isinstance(values, dict):
            raise DataError("the body must be a JSON object")
        return JSONResponse(handler(request, person, values))
    except ForbiddenError as error:
        return _error(403, str(error))
    except (BusyError, StoreError) as error:
        return _error(503, str(error))
    except ConflictError as error:
        return _error(409, str(error))
    except RecursionError:
        return _error(400, "the body is nested too deeply")
    except (RmkitError, json.JSONDecodeError, UnicodeDecodeError) as error:
        return _error(400, str(error))


def _error(status: int, text: str) -> Response:
    return JSONResponse({"error": text}, status)


def _page(status: int, title: str, text: str) -> Response:
    """For people: a wrong link shows what to do, not JSON."""
    return HTMLResponse(PAGE.format(title=escape(title), text=escape(text)), status, headers=FORM_HEADERS)


async def _activity(request: Request) -> Response:
    """A browser's count of work; nothing comes back, whatever was sent."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > activity.MAX_BODY:
            return Response(status_code=413)
    if (active_ms := activity.read_report(bytes(body))) is not None:
        await run_in_threadpool(_note, request.path_params["project"], request.path_params["id"], active_ms)
    return Response(status_code=204)


def _note(project: str, id: str, active_ms: int) -> None:
    desk = studio.current().opened(project)
    if desk is not None:
        desk.note_activity(id, active_ms)


async def _typed(request: Request) -> Response:
    """What stands in a browser's form so far, kept for its item; nothing comes back, whatever was sent."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > answer_form.MAX_BODY:
            return Response(status_code=413)
    await run_in_threadpool(_keep, request.path_params["project"], request.path_params["id"], bytes(body))
    return Response(status_code=204)


def _keep(project: str, id: str, body: bytes) -> None:
    desk = studio.current().opened(project)
    with contextlib.suppress(ValueError, RecursionError, RmkitError):
        if desk is not None and isinstance(values := json.loads(body), dict):
            desk.note_draft(id, values)


async def _unknown(request: Request) -> Response:
    return _error(404, f"nothing at {request.url.path}; what there is: docs/labeling.md, For programs"[:300])


def _projects(request: Request, person: Person, values: dict[str, Any]) -> object:
    """Leads see the broken ones too, by name with the reason; nobody else could do anything about them."""
    here = studio.current()
    result: list[dict[str, object]] = []
    broken = broken_projects(here.ledger)
    for project in projects(here.ledger):
        if not takes_part(here.ledger, project.name, project.task, person):
            continue
        try:
            progress = studio.visible_progress(here.desk(project.name), person)
        except (DataError, OSError) as error:
            broken[project.name] = str(error)
            continue
        about = {"name": project.name, "title": project.task.title, "kind": project.task.kind, "data": project.data}
        result.append({**about, "progress": progress})
    if person.may("lead"):
        result += [{"name": name, "broken": reason} for name, reason in broken.items()]
    return result


def _next(request: Request, person: Person, values: dict[str, Any]) -> object:
    desk = studio.current().desk(request.path_params["project"])
    ahead = _whole(request.query_params.get("ahead", "1"), "ahead", most=MAX_AHEAD)
    return [studio.visible(desk, hold, person) for hold in desk.open(person, ahead=ahead)]


def _answer(request: Request, person: Person, values: dict[str, Any]) -> object:
    desk = studio.current().desk(request.path_params["project"])
    _require_keys(values, ("answer", "active_ms", "wall_ms"))
    if "answer" not in values:
        raise DataError('the body has no answer; send {"answer": {...}}')
    times = {
        name: _whole(values[name], name, most=10**9, least=0)
        for name in ("active_ms", "wall_ms")
        if values.get(name) is not None
    }
    answer, id = read_answer(values["answer"]), request.path_params["id"]
    event = str(desk.submit(person, id, answer, **times))
    opinion = desk.opinion(person, id)
    return {"event": event} if opinion is None else {"event": event, "opinion": opinion.as_json()}


def _first(request: Request, person: Person, values: dict[str, Any]) -> object:
    desk = studio.current().desk(request.path_params["project"])
    _require_keys(values, ("answer",))
    if "answer" not in values:
        raise DataError('the body has no answer; send {"answer": {...}}')
    return {"suggested": desk.choose_first(person, request.path_params["id"], read_answer(values["answer"]))}


def _undo(request: Request, person: Person, values: dict[str, Any]) -> object:
    _require_keys(values, ())
    desk = studio.current().desk(request.path_params["project"])
    return studio.visible(desk, desk.undo(person, request.path_params["id"]), person)


def _release(request: Request, person: Person, values: dict[str, Any]) -> object:
    _require_keys(values, ())
    studio.current().desk(request.path_params["project"]).release(person, request.path_params["id"])
    return {}


def _draft(request: Request, person: Person, values: dict[str, Any]) -> object:
    studio.current().desk(request.path_params["project"]).keep_draft(person, request.path_params["id"], values)
    return {}


def _require_keys(values: Mapping[str, Any], known: Collection[str]) -> None:
    """A key that nobody reads is a mistake of who sent it: `anwser` would be no answer at all."""
    for name in values:
        if name not in known:
            raise DataError(unknown("key", name, known) if known else f"this call takes no body, got key {name!r}")


def _whole(value: Any, name: str, *, most: int, least: int = 1) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):  # 1e400 is infinite
        number = least - 1
    if not least <= number <= most:
        raise DataError(f"{name} is a whole number from {least} to {most}, got {value!r}")
    return number


async def _enter(request: Request) -> Response:
    """The token, from a form, becomes a cookie that scripts cannot read; it does not stay in the address.

    A link only fills the form in, and says for whom: were it enough, or a form of another site, anybody's page could
    sign a visitor in as somebody else, whose answers the visitor's would then be.
    """
    posted = request.method == "POST"
    if posted and _from_another_site(request):
        return _page(
            403, "Not from here", "This form was sent by a page of another site. Enter the token in the studio."
        )
    values: Mapping[str, Any] = await request.form() if posted else request.query_params
    token = str(values.get("token", ""))
    if not posted and not token:
        form = FORM.format(label="Your token", kind="password", token="")
        return HTMLResponse(form, headers=FORM_HEADERS)
    try:
        person = await run_in_threadpool(by_token, studio.current().ledger, token)
    except ForbiddenError as error:
        return _page(403, "This link opens nothing", str(error))
    if not posted:
        form = FORM.format(label=f"Work as {escape(person.name)}", kind="hidden", token=escape(token))
        return HTMLResponse(form, headers=FORM_HEADERS)
    response = RedirectResponse("/", status_code=303)
    secure = request.url.scheme == "https"
    response.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=secure, max_age=30 * 86400)
    return response


def _from_another_site(request: Request) -> bool:
    """What the browser says of where a request comes from; what is no browser says nothing."""
    if site := request.headers.get("sec-fetch-site"):
        return site not in ("same-origin", "none")
    origin = request.headers.get("origin")
    return origin is not None and origin.partition("://")[2] != request.headers.get("host")


async def _leave(request: Request) -> Response:
    if _from_another_site(request):
        return _page(403, "Not from here", "This link stands on a page of another site. Sign out in the studio.")
    response = RedirectResponse("/", status_code=303)
    response.delete_cookie(COOKIE, httponly=True, samesite="strict", secure=request.url.scheme == "https")
    return response


class AnswerBody(Body):
    """`active_ms` and `wall_ms` are believed up to the time since the item was given out."""

    answer: Answer
    active_ms: int | None = None
    wall_ms: int | None = None


class FirstBody(Body):
    """What is suggested comes back as fields of a judgment, responses by the places at which they are shown."""

    answer: Answer


_PROJECT = "/api/projects/{project}"
_AHEAD = {"ahead": f"how many, up to {MAX_AHEAD}"}
EVERYONE = (
    Operation("GET", "/api/projects", "See projects with their progress", _projects),
    Operation("GET", f"{_PROJECT}/next", "Get items to judge now", _next, query=_AHEAD),
    Operation("POST", f"{_PROJECT}/answers/{{id}}", "Answer an item", _answer, AnswerBody),
    Operation("POST", f"{_PROJECT}/first/{{id}}", "Choose first, then see what is suggested", _first, FirstBody),
    Operation("POST", f"{_PROJECT}/undo/{{id}}", "Take an answer back", _undo),
    Operation("POST", f"{_PROJECT}/release/{{id}}", "Give an item back unanswered", _release),
    Operation("PUT", f"{_PROJECT}/drafts/{{id}}", "Keep what is written so far", _draft),
)
