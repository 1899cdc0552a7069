"""What a hostile client, page or admin token can do to a running service: real sockets, real folders."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import shutil
import socket
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")

import httpx

from rmkit.errors import RmkitError
from rmkit.models import load_model
from rmkit.serve.auth.tokens import Keyring, operator_token
from rmkit.serve.http.app import create_app
from rmkit.serve.http.connections import MAX_HEAD_BYTES, Connection
from rmkit.serve.plan import ServePlan
from rmkit.serve.settings import ServeSettings
from rmkit.training import command as train
from tests.exports import kind_rows, write_export
from tests.rmkit.serve.compat_service import Running, running
from tests.rmkit.serve.serving import Steered, client_of

ALICE, BEN, ADMIN = ("rmk_" + letter * 40 for letter in "abc")
MB = 2**20


def keyring() -> Keyring:
    return Keyring(
        lambda: [
            operator_token(ALICE, name="alice"),
            operator_token(BEN, name="ben"),
            operator_token(ADMIN, name="admin"),
        ]
    )


def head(token: str, length: int, *, path: str = "/rmkit/v1/score") -> bytes:
    lines = (f"POST {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {token}", "Content-Type: application/json")
    return "\r\n".join((*lines, f"Content-Length: {length}", "", "")).encode()


def send(service: Running, data: bytes) -> socket.socket:
    opened = socket.create_connection(("127.0.0.1", service.port), timeout=15)
    opened.sendall(data)
    return opened


def until_closed(opened: socket.socket) -> bytes:
    """All that comes until the service closes; TimeoutError where it does not."""
    received = b""
    try:
        while part := opened.recv(65536):
            received += part
    except ConnectionResetError:
        pass
    return received


def score(service: Running, token: str, text: str = "abc") -> httpx.Response:
    body = {"items": [{"prompt": "p", "completions": [text]}]}
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.post(f"{service.url()}/rmkit/v1/score", json=body, headers=headers, timeout=15)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """Three tokens; 8 MB for all bodies, 1 MB each; patience of 1 s for a head, 1.5 s for silence in a body."""
    settings = ServeSettings(
        max_body_bytes=MB,
        max_pending_bytes=8 * MB,
        header_timeout_s=1.0,
        stall_timeout_s=1.5,
        body_timeout_s=2.5,
        max_item_tokens=8_000_000,
    )
    monkeypatch.setattr(Connection, "settings", settings)
    with running(create_app({"m": Steered()}, settings, keyring=keyring())) as started:
        yield started


@pytest.fixture
def patient_service() -> Iterator[Running]:
    settings = ServeSettings(max_body_bytes=MB, max_pending_bytes=8 * MB, max_item_tokens=8_000_000)
    with running(create_app({"m": Steered()}, settings, keyring=keyring())) as started:
        yield started


def test_bodies_that_are_only_declared_lock_nobody_out(patient_service: Running) -> None:
    idle = [send(patient_service, head(ALICE, MB)) for _ in range(16)]
    try:
        assert score(patient_service, BEN).status_code == 200
        assert score(patient_service, ALICE).status_code == 200
    finally:
        for one in idle:
            one.close()


def test_one_client_leaves_the_others_room(patient_service: Running) -> None:
    """8 MB in all: of bodies with 0.9 MB each Alice may hold four (4 x 0.9 <= 8 - 4 x 0.9, in MB of 2^20 bytes, but not
    5 x 0.9), and Ben still gets in."""
    size = 900 * 1024
    held = [send(patient_service, head(ALICE, MB) + b" " * size) for _ in range(4)]
    try:
        for _ in range(100):  # until what was sent has come in
            answer = score(patient_service, ALICE, "a" * size)
            if answer.status_code != 200:
                break
        assert (answer.status_code, "of yours" in answer.text) == (429, True)
        assert score(patient_service, BEN, "a" * size).status_code == 200
        held.pop().close()
        for _ in range(100):
            if (answer := score(patient_service, ALICE, "a" * size)).status_code == 200:
                break
        assert answer.status_code == 200  # three of them leave room for a fourth
    finally:
        for one in held:
            one.close()


@pytest.mark.parametrize("before", [b"", head(ALICE, 2) + b"{}"])
def test_a_head_that_does_not_end_is_not_waited_for(service: Running, before: bytes) -> None:
    """As the first thing on a connection, and behind a request that was answered."""
    with send(service, before) as opened:
        if before:
            assert opened.recv(65536).startswith(b"HTTP/1.1 422")
        opened.sendall(b"POST /rmkit/v1/score HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        assert until_closed(opened).startswith(b"HTTP/1.1 408")


def test_a_connection_that_says_nothing_is_closed(service: Running) -> None:
    with send(service, b"") as opened:
        assert until_closed(opened).startswith(b"HTTP/1.1 408")


def test_a_head_without_end_is_refused(service: Running) -> None:
    with send(service, b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 2 * MAX_HEAD_BYTES) as opened:
        assert until_closed(opened).startswith(b"HTTP/1.1 431")
    assert httpx.get(f"{service.url()}/healthz", headers={"x-long": "x" * (MAX_HEAD_BYTES // 2)}).status_code == 200


def test_a_body_that_stops_or_trickles_is_not_waited_for(service: Running) -> None:
    with send(service, head(ALICE, 1000) + b"{") as silent:
        answer = until_closed(silent)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"stopped for 1.5 s" in answer
    with send(service, head(ALICE, 10**6)) as trickling:
        ended = threading.Event()
        feeding = threading.Thread(target=_trickle, args=(trickling, ended))
        feeding.start()
        try:
            assert until_closed(trickling).startswith(b"HTTP/1.1 408")
        finally:
            ended.set()
            feeding.join()


def test_the_rest_of_a_refused_body_is_not_waited_for(service: Running) -> None:
    """Without a token the answer is there at once, but a body that goes on coming held the connection for good."""
    with send(service, head("nobody", 10**6)) as opened:
        assert opened.recv(65536).startswith(b"HTTP/1.1 401")
        ended = threading.Event()
        feeding = threading.Thread(target=_trickle, args=(opened, ended))
        feeding.start()
        try:
            until_closed(opened)
        finally:
            ended.set()
            feeding.join()


def _trickle(opened: socket.socket, ended: threading.Event) -> None:
    while not ended.wait(0.1):
        try:
            opened.sendall(b" ")
        except OSError:
            return


def test_a_slow_body_within_its_time_is_answered(service: Running) -> None:
    body = json.dumps({"items": [{"prompt": "p", "completions": ["four"]}]}).encode()
    with send(service, head(ALICE, len(body))) as opened:
        for at in range(0, len(body), 20):
            opened.sendall(body[at : at + 20])
            threading.Event().wait(0.1)
        assert b'"value":4.0' in opened.recv(65536)


def test_a_forwarded_address_is_nobody() -> None:
    from rmkit.serve.server import _config

    assert _config(create_app({"m": Steered()}), "127.0.0.1", 0).proxy_headers is False


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 403),
        ({"host": "evil.example:8383"}, 403),
        ({"host": "127.0.0.1.evil.example"}, 403),
        ({"host": "0.0.0.0"}, 403),
        ({"host": "[::1"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"host": "localhost:8383"}, 200),
        ({"host": "127.8.9.1"}, 200),
        ({"host": "[::1]:8383"}, 200),
        ({"host": "rewards.lan", "origin": "https://rewards.lan"}, 200),
        ({"origin": "http://localhost:3000"}, 200),
    ],
)
def test_without_tokens_only_this_machine_s_names_are_answered(headers: dict[str, str], status: int) -> None:
    """A page whose name was rebound to 127.0.0.1 read /rmkit/v1/models and scored; one elsewhere could send forms."""

    async def test() -> None:
        async with client_of(create_app({"m": Steered()}, ServeSettings(hosts=("rewards.lan",)))) as client:
            answer = await client.get("/rmkit/v1/models", headers=headers)
            assert answer.status_code == status, answer.text

    asyncio.run(test())


def test_with_tokens_any_name_will_do() -> None:
    async def test() -> None:
        async with client_of(create_app({"m": Steered()}, keyring=keyring())) as client:
            headers = {"host": "rewards.example", "authorization": f"Bearer {ALICE}"}
            assert (await client.get("/rmkit/v1/models", headers=headers)).status_code == 200

    asyncio.run(test())


def test_no_path_forges_or_colors_a_log_line(service: Running, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="rmkit.serve.access")
    path = "/x%0aPOST%20/rmkit/v1/admin/swap%20200%1b[2J%c2%9b31m%e2%80%ae"
    httpx.get(service.url() + path, timeout=15)
    [line] = [record.getMessage() for record in caplog.records if "/x" in record.getMessage()]
    assert line.isprintable()
    assert "/x\\nPOST /rmkit/v1/admin/swap 200\\x1b[2J\\x9b31m\\u202e 401" in line


@pytest.fixture(scope="module")
def lexical(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lexical")
    data = write_export(folder / "data", kind_rows(120))
    train.train("lexical", str(data), output=folder / "model")
    return folder / "model"


class Listener:
    """Counts who connects."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.socket.settimeout(0.3)
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"

    def connections(self) -> int:
        count = 0
        while True:
            try:
                self.socket.accept()[0].close()
            except TimeoutError:
                return count
            count += 1


def test_a_swap_takes_stored_models_under_the_roots_only(
    lexical: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A URL sent all clients' texts there, a judge's TOML an environment variable's value as well."""
    monkeypatch.setenv("SECRET", "the value")
    listener, root, outside = Listener(), tmp_path / "root", tmp_path / "outside"
    for folder in (root / "good", root / "changed", root / "damaged", outside, home / "models" / "stored"):
        shutil.copytree(lexical, folder)
    (root / "link").symlink_to(outside)
    rows = [json.loads(line) for line in (root / "damaged" / "golden.jsonl").read_text().splitlines()]
    rows[0]["score"] += 0.01
    (root / "damaged" / "golden.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    generator = f'[generator]\nbase_url = "{listener.url}/v1"\nmodel = "m"\nkey_env = "SECRET"\n'
    (root / "judge.toml").write_text(f'[judge]\nname = "j"\nform = "scale"\n{generator}')
    assert load_model(root / "judge.toml").info.name == "j"  # the command may serve it, a request may not
    roots = (str(home / "models"), str(root))
    plan = ServePlan(models={"m": "length"}, auth=True, swap_roots=roots)
    app = create_app({"m": Steered()}, keyring=keyring(), load_swapped=plan.load_swapped)

    async def test() -> None:
        async with client_of(app, headers={"authorization": f"Bearer {ADMIN}"}) as client:

            async def swap(model: str) -> tuple[int, str]:
                answer = await client.post("/rmkit/v1/admin/swap", json={"name": "m", "model": model})
                return answer.status_code, answer.json().get("error") or answer.json()["fingerprint"]

            for model in (
                listener.url,
                listener.url.replace("127.0.0.1", "rmkit@127.0.0.1"),
                str(root / "judge.toml"),
                str(outside),
                str(root / ".." / "outside"),
                str(root / "link"),
                str(root / "damaged"),
                "length",
                "/etc/passwd",
            ):
                status, told = await swap(model)
                assert (model, status) == (model, 400), told
                assert "the value" not in told
                answer = await client.post("/rmkit/v1/score", json={"items": [{"prompt": "p", "completions": ["abc"]}]})
                assert answer.json()["scores"][0][0]["value"] == 3  # the old model is still there
            expected = json.loads((lexical / "reward_model.json").read_text())["fingerprint"]
            assert await swap("stored") == (200, expected)
            assert await swap(str(root / "good")) == (200, expected)

    asyncio.run(test())
    assert listener.connections() == 0


def test_without_roots_nothing_is_swapped(lexical: Path) -> None:
    with pytest.raises(RmkitError, match="--swap-root"):
        ServePlan(models={"m": "length"}, auth=True).load_swapped(str(lexical))


class Addresses(HTMLParser):
    """Everything in a page that makes a browser ask for something."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href", "data", "action", "srcset")]


def test_the_page_of_the_api_asks_no_other_host() -> None:
    """FastAPI's own loaded its scripts and styles from a CDN, with the token in the page's address."""

    async def test() -> tuple[httpx.Response, dict[str, Any], int]:
        async with client_of(create_app({"m": Steered()})) as client:
            page, document = await client.get("/docs"), (await client.get("/openapi.json")).json()
            return page, document, (await client.get("/redoc")).status_code

    page, document, redoc = asyncio.run(test())
    assert (page.status_code, redoc) == (200, 404)
    read = Addresses()
    read.feed(page.text)
    assert (read.loaded, read.scripts) == (["openapi.json"], 0)
    assert not re.search(r"@import|url\(", page.text)
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    for path, methods in document["paths"].items():
        for method in methods:
            assert f"<code>{method.upper()} {path}</code>" in page.text
    assert "step-12/prompt-7" in page.text  # an example of the document
