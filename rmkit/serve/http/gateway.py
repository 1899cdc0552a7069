"""Who and how much comes in: the outermost layer of the service, in plain ASGI.

It finds the token (Authorization: Bearer, a Basic password, or /t/TOKEN/ before the path, cut off before anything can
log it), admits its principal (without tokens: whoever asks for this machine by its own name), reads the body within its
limits, and ends the work of a client that has gone. It writes the access log itself: method, path without token,
status, milliseconds, principal, request id; never a query or a body.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
import logging
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from typing import Any

from rmkit.cli.display import printable
from rmkit.serve.auth.tokens import Keyring
from rmkit.serve.http.budget import ByteBudget
from rmkit.serve.http.hosts import foreign
from rmkit.serve.http.problems import HttpError
from rmkit.serve.settings import ServeSettings

log = logging.getLogger(__name__)
access = logging.getLogger("rmkit.serve.access")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = ("/healthz", "/readyz")
_REQUEST_ID = re.compile(r"[\w.:-]{1,64}")


class GatewayMiddleware:
    """Wraps the application. `keyring` None lets everybody in, which is for loopback only.

    `full` raises the HttpError of a service that takes no more, before a body is read; `visited` hears of every
    answer: the route's pattern, the status and the seconds it took.
    """

    def __init__(
        self,
        app: App,
        *,
        settings: ServeSettings,
        keyring: Keyring | None = None,
        full: Callable[[], None] = lambda: None,
        visited: Callable[[str, int | None, float], None] = lambda route, status, seconds: None,
    ) -> None:
        self.app = app
        self.settings = settings
        self.keyring = keyring
        self.full = full
        self.visited = visited
        self.bytes = ByteBudget(settings.max_pending_bytes)
        self.requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        token = _cut_path_token(scope) or _header_token(headers.get(b"authorization", b""))
        scope["rmkit.request_id"] = _request_id(headers.get(b"x-request-id", b""))
        scope["rmkit.client"] = (scope.get("client") or ("local",))[0]
        visit = RequestContext(scope, send)
        self.requests += 1
        try:
            await self._enter(scope, headers, token, receive, visit)
        except HttpError as refused:
            await visit.refuse(refused)
        except Exception as error:  # the message may hold a request's text: only the type goes to the log
            log.error("request %s failed: %s", scope["rmkit.request_id"], type(error).__name__)
            log.debug("the error", exc_info=True)
            await visit.refuse(HttpError(500, "an error of the service; its log has the request id"))
        finally:
            self.requests -= 1
            visit.log()
            self.visited(_pattern(scope), visit.status, visit.seconds)

    async def _enter(
        self, scope: Scope, headers: dict[bytes, bytes], token: str | None, receive: Receive, visit: RequestContext
    ) -> None:
        if self.keyring is None:
            if wrong := foreign(scope["headers"], hosts=self.settings.hosts):
                raise HttpError(
                    403, f"{wrong} is not this machine: without tokens only its own names are answered; see hosts"
                )
        elif scope["path"] not in OPEN:
            principal = await self.keyring.admit(token, _needed(scope["path"]))
            scope["rmkit.client"] = principal.name
        client = scope["rmkit.client"]
        self._check_size(client, _declared(headers))  # what was only declared counts for nothing yet
        if scope["method"] == "POST":
            self.full()
        with self._held(client) as hold:
            body = await self._body(receive, hold)
            await _until_gone(self.app, scope, body, receive, visit.send)

    async def _body(self, receive: Receive, hold: Callable[[int], None]) -> bytes:
        body = bytearray()
        now, limits = asyncio.get_running_loop().time, self.settings
        end = now() + limits.body_timeout_s
        try:
            async with asyncio.timeout_at(now() + limits.stall_timeout_s) as patience:
                async for piece in _pieces(receive):
                    hold(len(piece))
                    body += piece
                    patience.reschedule(min(end, now() + limits.stall_timeout_s))
        except TimeoutError as error:
            reason = f"it stopped for {limits.stall_timeout_s:g} s, or took more than {limits.body_timeout_s:g} s"
            raise HttpError(408, f"the request's body did not come in: {reason}") from error
        return bytes(body)

    @contextlib.contextmanager
    def _held(self, client: str) -> Iterator[Callable[[int], None]]:
        """The yielded function counts bytes of a request as they come, until its answer is out."""
        held = 0

        def hold(size: int) -> None:
            nonlocal held
            self._check_size(client, size, own=held)
            self.bytes.take(client, size)
            held += size

        try:
            yield hold
        finally:
            self.bytes.give_back(client, held)

    def _check_size(self, client: str, size: int, *, own: int = 0) -> None:
        if own + size > self.settings.max_body_bytes:
            raise HttpError(413, f"a body of {own + size} bytes; at most {self.settings.max_body_bytes} are taken")
        self.bytes.check(client, size, own=own)


class RequestContext:
    """One request's answer: passes messages on, remembers the status, adds the request id."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send
        self._since = time.monotonic()
        self.status: int | None = None

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._since

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            request_id = self._scope["rmkit.request_id"].encode()
            message = {**message, "headers": [*message.get("headers", []), (b"x-request-id", request_id)]}
        await self._send(message)

    async def refuse(self, refused: HttpError) -> None:
        """Answer with the refusal, unless an answer has begun. The body may be unread, so the connection closes."""
        if self.status is not None:
            return
        body = json.dumps({"error": str(refused), "request_id": self._scope["rmkit.request_id"]}).encode()
        headers = {"content-type": "application/json", "content-length": str(len(body)), **refused.headers}
        if refused.status == 401:
            headers["www-authenticate"] = 'Bearer, Basic realm="rmkit"'
        if refused.status in (408, 413):
            headers["connection"] = "close"
        pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        with contextlib.suppress(OSError):
            await self.send({"type": "http.response.start", "status": refused.status, "headers": pairs})
            await self.send({"type": "http.response.body", "body": body})

    def log(self) -> None:
        scope = self._scope
        access.info(
            "%s %s %s %.1f ms client=%s id=%s",
            scope["method"],
            printable(scope["path"], lines=False),
            self.status or "gone",
            1000 * self.seconds,
            printable(scope["rmkit.client"], lines=False),
            scope["rmkit.request_id"],
        )


def _cut_path_token(scope: Scope) -> str | None:
    """The TOKEN of /t/TOKEN/..., which is taken out of the scope in place: the server's own logs read it too."""
    path: str = scope["path"]
    if not path.startswith("/t/"):
        return None
    token, _, rest = path.removeprefix("/t/").partition("/")
    scope["path"] = "/" + rest
    scope["raw_path"] = scope["path"].encode()
    return token


def _header_token(value: bytes) -> str | None:
    scheme, _, rest = value.decode("latin-1").partition(" ")
    match scheme.lower():
        case "bearer":
            return rest.strip()
        case "basic":
            try:
                return base64.b64decode(rest, validate=True).decode().partition(":")[2]
            except (binascii.Error, UnicodeDecodeError):
                return None
    return None


def _request_id(value: bytes) -> str:
    """The client's own id where it is a sane one, else a new one."""
    text = value.decode("latin-1")
    return text if _REQUEST_ID.fullmatch(text) else uuid.uuid4().hex


def _pattern(scope: Scope) -> str:
    """The path's pattern where a route took it, one word for all others: counters stay few."""
    return getattr(scope.get("route"), "path", "none")


def _needed(path: str) -> str:
    if path == "/metrics":
        return "metrics"
    return "admin" if path.startswith("/rmkit/v1/admin/") else "score"


def _declared(headers: dict[bytes, bytes]) -> int:
    value = headers.get(b"content-length", b"0")
    return int(value) if value.isdigit() else 0


async def _pieces(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _GoneError("the client left before its request was whole")
        yield message.get("body", b"")
        if not message.get("more_body", False):
            return


async def _until_gone(app: App, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
    """Run the app on the body that was read; where the client disconnects, cancel it."""
    whole = asyncio.Event()

    async def replay() -> Message:
        if whole.is_set():
            await asyncio.Event().wait()  # ends with the task
        whole.set()
        return {"type": "http.request", "body": body, "more_body": False}

    work = asyncio.ensure_future(app(scope, replay, send))
    watch = asyncio.ensure_future(receive())  # returns only when the client is gone
    try:
        await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        watch.cancel()
        work.cancel()  # no effect on finished work
    with contextlib.suppress(asyncio.CancelledError):
        await work


class _GoneError(HttpError):
    def __init__(self, message: str) -> None:
        super().__init__(400, message)
