"""Who comes in: tokens in three places, scopes, rates, ends, revocation; and what no log may hold."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")

import httpx

from rmkit.cli.main import main as rmkit
from rmkit.errors import UsageError
from rmkit.ledger import Ledger, open_ledger
from rmkit.serve.auth import tokens as principals
from rmkit.serve.auth.tokens import Keyring, create, operator_token, revoke, stored
from rmkit.serve.http.app import create_app
from rmkit.serve.plan import ServePlan, is_loopback, named_models, needs_tokens
from tests.rmkit.serve.serving import Steered, client_of

BODY = {"items": [{"prompt": "a secret prompt", "completions": ["a secret answer"]}]}
OPEN = {"/healthz", "/readyz"}


@pytest.fixture
def ledger(home: Path) -> Any:
    with open_ledger() as opened:
        yield opened


def run(ledger: Ledger, test: Callable[[httpx.AsyncClient], Awaitable[Any]], *, share: float = 1.0) -> Any:
    app = create_app({"m": Steered()}, keyring=Keyring(lambda: stored(ledger), share=share), ledger=ledger)

    async def within() -> Any:
        async with client_of(app) as client:
            return await test(client)

    return asyncio.run(asyncio.wait_for(within(), 20))


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def basic(token: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"anyone:{token}".encode()).decode()}


def test_a_token_is_taken_in_three_places(ledger: Ledger) -> None:
    token = create(ledger, "trainer")

    async def test(client: httpx.AsyncClient) -> list[int]:
        ways = [("", bearer(token)), ("", basic(token)), (f"/t/{token}", {})]
        return [
            (await client.post(f"{prefix}/rmkit/v1/score", json=BODY, headers=headers)).status_code
            for prefix, headers in ways
        ]

    assert run(ledger, test) == [200, 200, 200]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer("wrong"),
        bearer(""),
        basic("wrong"),
        {"Authorization": "Basic !"},
        {"Authorization": "Basic /w=="},
        {"Authorization": "nonsense"},
    ],
)
def test_without_a_right_token_only_health_is_told(ledger: Ledger, headers: dict[str, str]) -> None:
    create(ledger, "trainer")

    async def test(client: httpx.AsyncClient) -> None:
        document = (await client.get("/openapi.json", headers=headers)).status_code
        assert document == 401
        for path in ("/rmkit/v1/score", "/rmkit/v1/models", "/metrics", "/docs", "/t/wrong/rmkit/v1/score", "/x"):
            answer = await client.post(path, json=BODY, headers=headers)
            assert (path, answer.status_code) == (path, 401)
            assert answer.headers["www-authenticate"].startswith("Bearer")
        for path in OPEN:
            assert (await client.get(path, headers=headers)).status_code == 200

    run(ledger, test)


def test_every_route_but_health_asks_for_a_token(ledger: Ledger) -> None:
    """All that the application has, the dialects' routes included."""

    async def test(client: httpx.AsyncClient) -> None:
        app: Any = client._transport.app  # type: ignore[attr-defined]
        for path, methods in app.openapi()["paths"].items():
            for method in methods:
                status = (await client.request(method, path)).status_code
                assert (path, status) == (path, 401) or path in OPEN

    run(ledger, test)


def test_expired_and_revoked_tokens_are_refused(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(principals, "REFRESH_S", 0.0)
    past = create(ledger, "past", expires=datetime.now(UTC) - timedelta(seconds=1))
    future = create(ledger, "future", expires=datetime.now(UTC) + timedelta(hours=1))
    fired = create(ledger, "fired")

    async def test(client: httpx.AsyncClient) -> None:
        async def ask(token: str) -> httpx.Response:
            return await client.post("/rmkit/v1/score", json=BODY, headers=bearer(token))

        assert ((await ask(past)).status_code, (await ask(past)).json()["error"]) == (401, "the token has expired")
        assert (await ask(future)).status_code == 200
        assert (await ask(fired)).status_code == 200
        revoke(ledger, "fired")
        assert ((await ask(fired)).status_code, (await ask(fired)).json()["error"]) == (401, "the token was revoked")

    run(ledger, test)


def test_scopes_open_their_own_paths_only(ledger: Ledger) -> None:
    tokens = {scope: create(ledger, scope, scopes=[scope]) for scope in ("score", "metrics", "admin")}

    async def test(client: httpx.AsyncClient) -> None:
        asks = [("POST", "/rmkit/v1/score"), ("GET", "/metrics"), ("POST", "/rmkit/v1/admin/swap")]
        for scope, token in tokens.items():
            got = [(await client.request(m, p, json=BODY, headers=bearer(token))).status_code != 403 for m, p in asks]
            assert got == [scope == other for other in tokens], scope

    run(ledger, test)


def test_a_rate_is_kept_and_shared_among_processes(ledger: Ledger) -> None:
    """60 a minute: a burst of ten, then Retry-After; with two processes each has half of it."""
    token, other = create(ledger, "slow", requests_per_minute=60), create(ledger, "fast")

    async def burst(client: httpx.AsyncClient) -> list[int]:
        answers = [await client.get("/rmkit/v1/models", headers=bearer(token)) for _ in range(12)]
        assert answers[-1].headers["retry-after"] in ("1", "2")
        assert (await client.get("/rmkit/v1/models", headers=bearer(other))).status_code == 200
        return [answer.status_code for answer in answers]

    assert run(ledger, burst).count(200) in (10, 11)
    assert run(ledger, burst, share=0.5).count(200) in (5, 6)


def test_no_token_and_no_text_is_kept_or_logged(ledger: Ledger, home: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    token = create(ledger, "trainer")

    async def test(client: httpx.AsyncClient) -> None:
        await client.post("/rmkit/v1/score?key=secret", json=BODY, headers=bearer(token))
        await client.post(f"/t/{token}/rmkit/v1/score", json=BODY)
        await client.post(f"/t/{token}/secret", json=BODY, headers=basic(token))
        await client.post("/rmkit/v1/score", content=b'{"items": "secret"}', headers=bearer(token))
        await client.post("/rmkit/v1/score", json={"items": [{"prompt": "secret", "completions": ["bad"]}]})

    logging.getLogger("httpx").setLevel(logging.ERROR)  # the test's own client logs its URLs
    try:
        run(ledger, test)
    finally:
        logging.getLogger("httpx").setLevel(logging.NOTSET)
    own = [record.getMessage() for record in caplog.records if record.name.startswith("rmkit")]
    assert any("POST /rmkit/v1/score 200" in line and "client=trainer" in line for line in own)
    assert not [record for record in caplog.records if token in record.getMessage()]
    assert not [line for line in own if "secret" in line.replace("POST /secret", "")]
    stored_bytes = b"".join(path.read_bytes() for path in home.rglob("ledger*"))
    assert token.encode() not in stored_bytes
    assert b"secret" not in stored_bytes
    assert principals.sha256(token).encode() in stored_bytes


def test_the_command_makes_lists_and_revokes(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told(*arguments: str) -> Any:
        assert rmkit(["token", *arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    token = told("create", "ci", "--expires", "7d", "--rate", "600", "--scope", "score", "--scope", "metrics")["token"]
    [listed] = told("list")["tokens"]
    assert (listed["scopes"], listed["requests_per_minute"], listed["state"]) == (["metrics", "score"], 600, "valid")
    days = (datetime.fromisoformat(listed["expires"]) - datetime.now(UTC)) / timedelta(days=1)
    assert 6.9 < days <= 7
    assert told("revoke", "ci")["state"] == "the token was revoked"
    assert rmkit(["token", "list"]) == 0
    assert token not in capsys.readouterr().out
    for arguments, reason in (
        (["create", "ci"], "already"),
        (["revoke", "nobody"], "no token named"),
        (["create", "a b"], "letters"),
        (["create"], "required: name"),
        (["create", "x", "--expires", "soon"], "12h"),
        (["create", "x", "--rate", "0"], "positive"),
    ):
        assert rmkit(["token", *arguments]) == 2
        assert reason in capsys.readouterr().err


def test_beyond_loopback_a_usable_token_is_needed(ledger: Ledger) -> None:
    none: list[Any] = []
    create(ledger, "metrics", scopes=["metrics"])
    create(ledger, "past", expires=datetime.now(UTC) - timedelta(hours=1))
    useless, useful = stored(ledger), [operator_token("x" * 20)]
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "::", "10.0.0.1", "host")] == [
        *[True] * 3,
        *[False] * 4,
    ]
    for host in ("0.0.0.0", "::", "rewards.example"):
        for known in (none, useless):
            with pytest.raises(UsageError, match="a token is needed"):
                needs_tokens(host, known, no_auth=False)
        with pytest.raises(UsageError, match="without --no-auth"):
            needs_tokens(host, useful, no_auth=True)
        assert needs_tokens(host, useful, no_auth=False)
    assert not needs_tokens("127.0.0.1", useless, no_auth=False)
    assert needs_tokens("127.0.0.1", useful, no_auth=False)
    assert not needs_tokens("127.0.0.1", useful, no_auth=True)


def test_the_command_refuses_to_be_open_to_the_world(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rmkit(["serve", "length", "--host", "0.0.0.0"]) == 2
    assert "a token is needed: rmkit token create NAME" in capsys.readouterr().err
    short = home / "short"
    home.mkdir(exist_ok=True)
    short.write_text("short\n")
    assert rmkit(["serve", "length", "--token-file", str(short)]) == 2
    assert "at least 16" in capsys.readouterr().err


def test_a_plan_goes_to_worker_processes_whole_and_without_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RMKIT_SERVE_PLAN", raising=False)
    one = operator_token("a very long secret")
    plan = ServePlan(
        models=named_models(["helpful=models/a", "models/b/"]),
        operator_tokens=({**{f: getattr(one, f) for f in one.__dataclass_fields__}, "scopes": list(one.scopes)},),
    )
    assert plan.models == {"helpful": "models/a", "b": "models/b/"}
    plan.to_environment()
    import os

    assert "a very long secret" not in os.environ["RMKIT_SERVE_PLAN"]
    assert ServePlan.from_environment() == plan
    with pytest.raises(UsageError, match="NAME=MODEL"):
        named_models(["x/a", "y/a"])
