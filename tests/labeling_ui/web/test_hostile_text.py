"""Names, guidelines, questions, reasons, rubrics and data that would be script, on every page, in a real browser."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_pipelines.ingest.command import ingest
from labeling_ui.benchmarks.process import Server
from labeling_ui.desk.answers import Answer
from labeling_ui.projects.definition import read_definition
from labeling_ui.projects.people import Person, add_person
from labeling_ui.projects.project import create_project
from labeling_ui.web import sign_in
from rmkit.ledger import open_ledger

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")]

TRAP = "http://127.0.0.1:9"  # nothing listens there; asking for it is the fault
SCRIPT = f"<script>document.title='pwned'</script><img src={TRAP}/i.png onerror=\"document.title='pwned'\">"
EVIL = f"{SCRIPT} ![x]({TRAP}/m.png)"
NAME = EVIL.replace("/", ":")  # a name has no slash
OWN = (Path(sign_in.__file__).parent / "assets" / "studio.js").read_text("utf-8")  # of the studio itself
PAGES = ("", "my-work", "project", "data", "datasets", "models", "rubrics", "settings")


@pytest.fixture
def server(home: Path, tmp_path: Path) -> Iterator[tuple[Server, str]]:
    """A project all of whose texts are hostile, with answers, a pause and a rubric; a running studio and a token."""
    rows = [
        {"prompt": f"{EVIL} {n}", "chosen": f"good {EVIL}", "rejected": f"bad {n} {EVIL}", "domain": EVIL}
        for n in range(4)
    ]
    asked = [{"role": "user", "content": f"graded {EVIL}"}]
    graded = {"prompt": asked, "rubrics": [{"criterion": f"{EVIL} is told", "points": 3, "tags": [EVIL]}]}
    (tmp_path / "evil.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "graded.jsonl").write_text(json.dumps(graded) + "\n")
    ingest(tmp_path / "evil.jsonl", dataset="evil")
    ingest(tmp_path / "graded.jsonl", dataset="graded")
    with open_ledger() as ledger:
        # A lead's own words may be Markdown with pictures, but never script.
        own = {"title": EVIL, "question": SCRIPT, "guidelines": SCRIPT, "bad_item_reasons": (SCRIPT,)}
        task = replace(read_definition("pairwise"), quiz=(), **own)
        desk = create_project(ledger, "evil", task=task, data="evil@v1").desk(ledger)
        token, lead = add_person(ledger, NAME, role="admin"), Person(NAME, "admin")
        for verdict in (Answer(better=0, rationale=EVIL), Answer(verdict="bad_item", reason=SCRIPT)):
            (hold,) = desk.open(lead)
            desk.submit(lead, hold.id, verdict, active_ms=900)
        desk.pause(lead, "someone", reason=EVIL)
    running = Server(home)
    running.start()
    yield running, token
    running.kill()


def test_no_page_runs_or_loads_what_a_text_asks_for(server: tuple[Server, str]) -> None:
    running, token = server
    asked: list[str] = []
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1400, "height": 1600})
        page.set_default_timeout(60_000)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{running.url}/enter?token={token}")
        page.get_by_role("button", name="Enter").click()
        for name in PAGES:
            page.goto(f"{running.url}/{name}")
            _complete(page)
            page.evaluate("document.querySelectorAll('details:not([open]) > summary').forEach(one => one.click())")
            _complete(page)
            _harmless(page, name)
        assert page.locator("[data-testid=stSidebar]").get_by_text(re.compile("pwned")).count()  # it is shown, as text
        browser.close()
    assert not [url for url in asked if url.startswith(TRAP)]


def _complete(page: Any) -> None:
    page.wait_for_function(
        "() => document.querySelector('[data-testid=stApp]')?.dataset.testScriptState === 'notRunning'"
        " && document.querySelector('[data-testid=stMain]').innerText.trim().length > 10"
    )
    page.wait_for_timeout(700)


def _harmless(page: Any, name: str) -> None:
    assert page.title() != "pwned", name
    assert page.locator("[data-testid=stException]").count() == 0, name
    made = page.locator(f"[data-testid=stApp] script, [data-testid=stApp] img[src^='{TRAP}']")
    texts = made.evaluate_all("found => found.map(one => one.textContent || one.src)")
    assert [text for text in texts if text.strip() != OWN.strip()] == [], name
