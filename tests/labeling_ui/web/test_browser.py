"""The studio in a real browser: keys, undo, a lost connection, two people at once, text that would be script.

Needs chromium and playwright (extra dev); skipped where either is absent. `-s` prints the times.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from data_pipelines.ingest.command import ingest
from labeling_ui.projects.definition import read_definition
from labeling_ui.projects.people import add_person
from labeling_ui.projects.project import create_project
from labeling_ui.web import sign_in
from rmkit.cli.main import call
from rmkit.ledger import open_ledger

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")]

EVIL = "<script>document.title = 'pwned'</script><img src=x onerror=\"document.title = 'pwned'\"> ![x](http://127.0.0.1:9/i.png)"
Enter = Callable[..., Any]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """`rmkit label serve` as a process that can be killed and started again."""

    def __init__(self, home: Path) -> None:
        self.port, self._home = _free_port(), home
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "rmkit", "label", "serve", "--port", str(self.port)]
        self.process = subprocess.Popen(command, env={**os.environ, "RMKIT_HOME": str(self._home)})
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)
        raise AssertionError("the studio did not start")

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def server(home: Path) -> Iterator[Server]:
    """The demo project and two accounts, served."""
    from labeling_ui.projects.demo import make_demo

    with open_ledger() as ledger:
        make_demo(ledger)
        tokens = {name: add_person(ledger, name, role=role) for name, role in (("anna", "lead"), ("ben", "annotator"))}
    (home / "tokens.json").write_text(json.dumps(tokens))
    running = Server(home)
    yield running
    running.kill()


@pytest.fixture
def enter(server: Server, home: Path) -> Iterator[Enter]:
    """A page in a browser of its own, signed in."""
    tokens = json.loads((home / "tokens.json").read_text())
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])

        def open_(name: str) -> Any:
            page = browser.new_context(viewport={"width": 1400, "height": 900}).new_page()
            page.goto(f"{server.url}/enter?token={tokens[name]}")
            page.get_by_role("button", name="Enter").click()
            _ready(page)
            return page

        yield open_
        browser.close()


def _ready(page: Any) -> None:
    page.get_by_role("button", name=re.compile("B much better")).wait_for(timeout=90_000)
    page.wait_for_function(NEXT_ITEM, arg="", timeout=60_000)


def _answers(home: Path) -> list[dict[str, Any]]:
    with open_ledger(home / "ledger.sqlite") as ledger:
        return [{"actor": one.event.actor, **one.event.payload} for one in ledger.events(kinds=["judgment"])]


def _prompt(page: Any) -> str:
    return str(page.locator("[data-testid=stMain]").inner_text())


NEXT_ITEM = """before => document.querySelector('[data-testid=stMain]').innerText !== before
    && document.querySelector('[data-testid=stApp]').dataset.testScriptState === 'notRunning'
    && !document.querySelector('.rmkit-answer')?.sheet?.sent"""


def _press(page: Any, key: str) -> float:
    """Seconds until the next item stands there, complete: a key pressed earlier would meet the old item's buttons."""
    before, start = _prompt(page), time.monotonic()
    page.keyboard.press(key)
    page.wait_for_function(NEXT_ITEM, arg=before, timeout=60_000)
    return time.monotonic() - start


def test_the_loop_closes_ten_pairs_a_version_a_model_and_its_metric(
    enter: Enter, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, start = enter("anna"), time.monotonic()
    times = [_press(page, str(1 + 6 * (turn % 2))) for turn in range(10)]
    spent = time.monotonic() - start
    answers = _answers(home)
    assert len(answers) == 10
    assert {answer["strength"] for answer in answers} == {3.0}
    chosen = [answer["shown_order"].index(answer["ranks"].index(0)) for answer in answers]
    assert chosen == [0, 1] * 5  # key 1 is A much better, key 7 is B much better, whatever order was shown
    assert all(answer["wall_ms"] >= answer["active_ms"] > 0 for answer in answers[1:])

    page.goto(page.url.rstrip("/") + "/project")
    page.get_by_role("button", name=re.compile("Make the labels a dataset version")).click(timeout=60_000)
    page.get_by_text("demo-labels@v1").first.wait_for(timeout=60_000)
    assert call("label", ["commit", "demo", "--merge"]) == 0
    assert call("run", ["clean", "--data", "demo@v2", "--out", "demo-clean"]) == 0
    assert call("train", ["lexical", "--data", "demo-clean", "-o", str(home / "lexical")]) == 0
    capsys.readouterr()
    assert call("eval", [str(home / "lexical"), "--data", "demo-clean", "--split", "test", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    print(
        f"ten pairs in {spent:.1f} s; key to next item: median {1000 * statistics.median(times):.0f} ms, "
        f"slowest {1000 * max(times):.0f} ms; test metric {json.dumps(told)[:300]}"
    )


def test_undo_by_key_brings_the_item_back(enter: Enter, home: Path) -> None:
    page = enter("anna")
    first = _prompt(page)
    _press(page, "4")
    _press(page, "u")
    assert _prompt(page) == first
    _press(page, "1")
    answers = _answers(home)
    assert [answer.get("verdict", "ok") for answer in answers] == ["ok", "skip", "ok"]


def test_a_second_press_before_the_next_item_stands_there_answers_nothing(enter: Enter, home: Path) -> None:
    page = enter("anna")
    before = _prompt(page)
    for _ in range(3):
        page.keyboard.press("1")
    page.wait_for_function(NEXT_ITEM, arg=before, timeout=60_000)
    time.sleep(1)
    second = _prompt(page)
    assert len(_answers(home)) == 1
    page.reload()
    _ready(page)
    assert _prompt(page) == second


def test_an_item_is_answered_on_disk_before_the_next_one_is_shown(enter: Enter, server: Server, home: Path) -> None:
    page = enter("anna")
    for n in range(1, 6):
        _press(page, str(n))
        with sqlite3.connect(home / "ledger.sqlite") as reader:
            assert reader.execute("SELECT count(*) FROM event WHERE kind = 'judgment'").fetchone() == (n,)
    server.kill()
    assert len(_answers(home)) == 5


def test_a_lost_connection_and_a_killed_server_lose_nothing(enter: Enter, server: Server, home: Path) -> None:
    page = enter("anna")
    _press(page, "1")
    second = _prompt(page)
    server.kill()
    server.start()
    page.reload()
    _ready(page)
    assert _prompt(page) == second  # the item is still held by the same person
    _press(page, "7")
    assert len(_answers(home)) == 2


def test_two_people_at_once_get_different_items(enter: Enter, home: Path) -> None:
    anna, ben = enter("anna"), enter("ben")
    for _ in range(4):
        _press(anna, "1")
        _press(ben, "7")
    answers = _answers(home)
    assert len({answer["unit"] for answer in answers}) == 8  # the demo wants one answer an item
    assert {answer["actor"] for answer in answers} == {"anna", "ben"}


def _made(page: Any) -> list[str]:
    """Scripts and the text's picture among what the page holds, but for the studio's own script."""
    nodes = page.locator("[data-testid=stMain] script, [data-testid=stMain] img[src*='i.png']")
    texts = nodes.evaluate_all("nodes => nodes.map(one => one.textContent || one.src)")
    own = (Path(sign_in.__file__).parent / "assets" / "studio.js").read_text("utf-8")
    return [text for text in texts if text.strip() != own.strip()]


def test_text_that_would_be_script_is_shown_and_does_nothing(home: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"{EVIL} {n}", "chosen": f"good {EVIL}", "rejected": f"bad {n} {EVIL}"} for n in range(3)]
    file = tmp_path / "evil.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ingest(file, dataset="evil")
    from dataclasses import replace

    with open_ledger() as ledger:
        create_project(ledger, "evil", task=replace(read_definition("pairwise"), quiz=()), data="evil@v1")
        token = add_person(ledger, "anna", role="annotator")
    running = Server(home)
    try:
        with playwright.sync_playwright() as started:
            browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
            page = browser.new_page()
            asked: list[str] = []
            page.on("request", lambda request: asked.append(request.url))
            page.goto(f"{running.url}/enter?token={token}")
            page.get_by_role("button", name="Enter").click()
            _ready(page)
            time.sleep(1)
            assert "pwned" not in page.title()
            assert "<script>" in _prompt(page)
            assert _made(page) == []
            _press(page, "d")
            assert "% of the words are the same" in _prompt(page)
            assert "<script>" in _prompt(page)
            assert "pwned" not in page.title()
            assert _made(page) == []
            assert not [url for url in asked if "127.0.0.1:9" in url or url.endswith("/x")]
            browser.close()
    finally:
        running.kill()
