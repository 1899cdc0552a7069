"""Around everything that the studio answers: whose browser may ask, and whom its pages may make it ask."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

from rmkit.serve.http.hosts import foreign

# Streamlit's pages need inline styles, eval (charts) and blobs (workers); nothing that they load is elsewhere.
POLICY = (
    b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    b"object-src 'none'; base-uri 'self'; frame-ancestors 'self'"
)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]


class Guard:
    """ASGI middleware. `hosts` are the names, beside loopback's own, under which a studio on loopback is asked for;
    None where it is open to others, whose names for it nobody knows."""

    def __init__(self, app: Any, *, hosts: Collection[str] | None = None) -> None:
        self.app = app
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        requests = scope["type"] in ("http", "websocket")
        if requests and self.hosts is not None and (wrong := foreign(scope["headers"], hosts=self.hosts)):
            await _refuse(scope["type"], f"{wrong} is not this machine; see: rmkit label serve --allow-host", send)
            return

        async def send_with_policy(message: Scope) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", [])]
                if not any(name.lower() == b"content-security-policy" for name, _ in headers):
                    headers.append((b"content-security-policy", POLICY))
                message = {**message, "headers": headers}
            await send(message)

        await self.app(scope, receive, send_with_policy)


async def _refuse(kind: str, reason: str, send: Send) -> None:
    if kind == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": reason[:100]})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": reason.encode()})
