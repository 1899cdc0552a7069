"""A lead without a terminal, in a real browser: from a file of votes to a committed version.

Needs chromium and playwright; skipped where either is absent. `-s` prints time and clicks.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from labeling_ui.benchmarks.process import Server
from labeling_ui.client import StudioClient, StudioError
from labeling_ui.projects.people import add_person
from rmkit.ledger import open_ledger
from warehouse.store import open_warehouse
from warehouse.versions.checkout import checkout
from warehouse.versions.versions import resolve

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")]

READY = """() => document.querySelector('[data-testid=stApp]')?.dataset.testScriptState === 'notRunning'
    && (document.querySelector('[data-testid=stMain]')?.innerText.trim().length ?? 0) > 20
    && !document.querySelector('[data-testid=stMain] [data-stale=true]')
    && !document.querySelector('.rmkit-answer')?.sheet?.sent"""
N = 8


class Visitor:
    """A person in a browser of their own, whose clicks and typing are counted."""

    def __init__(self, browser: Any, url: str) -> None:
        self.page = browser.new_context(viewport={"width": 1400, "height": 900}, accept_downloads=True).new_page()
        self.clicks = self.keys = 0
        self.page.goto(url)
        self.page.get_by_role("button", name="Enter").click()
        self.clicks += 1
        self.ready()

    def ready(self) -> None:
        """Complete. What a press is to bring is waited for by its own words: see `see`."""
        self.page.wait_for_timeout(200)
        self.page.wait_for_function(READY, timeout=60_000)

    def see(self, text: str | re.Pattern[str]) -> None:
        self.page.get_by_text(text).first.wait_for(timeout=60_000)
        self.ready()

    def click(self, role: str, name: str | re.Pattern[str], *, exact: bool = False) -> None:
        self.page.get_by_role(role, name=name, exact=exact).first.click(timeout=30_000)
        self.clicks += 1
        self.ready()

    def go(self, path: str) -> None:
        self.page.locator(f"[data-testid=stSidebarNavLink][href$='/{path}']").click()
        self.clicks += 1
        self.ready()

    def fill(self, label: str, text: str) -> None:
        field = self.page.get_by_label(label).first
        field.click()
        field.fill(text)
        field.press("Tab")
        self.clicks += 1
        self.ready()

    def choose(self, label: str, option: str) -> None:
        """An option of a selectbox or multiselect."""
        field = self.page.get_by_role("combobox", name=label).first
        for patience_s in (5, 10, 30):  # a page that runs meanwhile closes the list
            self.ready()
            field.click()
            field.fill(option)
            with contextlib.suppress(playwright.TimeoutError):
                self.page.get_by_role("option", name=option).first.click(timeout=1000 * patience_s)
                break
        self.page.keyboard.press("Tab")
        self.clicks += 2
        self.ready()

    def press(self, key: str) -> None:
        before = self.text()
        self.page.keyboard.press(key)
        self.keys += 1
        self.page.wait_for_function(
            "before => document.querySelector('[data-testid=stMain]').innerText !== before", arg=before, timeout=30_000
        )
        self.ready()

    def text(self) -> str:
        return str(self.page.locator("[data-testid=stMain]").inner_text())

    def chosen_first(self) -> bool:
        """Whether the response shown first is the right one."""
        first = self.page.get_by_role("region", name="Response A").inner_text()
        return "right" in first


@pytest.fixture
def votes(tmp_path: Path) -> Path:
    """Eight questions, three votes on each; on the first two all votes agree."""
    rows = [
        f"question {n}: what is {n} + {n}?,right: {2 * n},wrong: {2 * n + 1},{side},{voter}"
        for n in range(N)
        for voter in ("xaver", "yuri", "zoe")
        for side in ("B" if n > 1 and voter == "zoe" else "A",)
    ]
    file = tmp_path / "votes.csv"
    file.write_text("\n".join(["question,left,right,winner,annotator", *rows]) + "\n")
    return file


@pytest.fixture
def server(home: Path) -> Iterator[tuple[Server, str]]:
    with open_ledger() as ledger:
        token = add_person(ledger, "lea", role="lead")
    running = Server(home)
    running.start()
    yield running, token
    running.kill()


def _item(visitor: Visitor) -> int:
    visitor.page.get_by_text(re.compile(r"question \d+")).first.wait_for(timeout=60_000)
    match = re.search(r"question (\d+)", visitor.text())
    assert match, visitor.text()
    return int(match[1])


def test_from_a_votes_file_to_a_committed_version_without_a_terminal(
    server: tuple[Server, str], votes: Path, home: Path
) -> None:
    running, token = server
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        begin = time.monotonic()
        lea = Visitor(browser, f"{running.url}/enter?token={token}")

        # A project from the uploaded file, read as `rmkit ingest --dry-run` reads it.
        lea.go("new-project")
        lea.page.locator("[data-testid=stFileUploader] input[type=file]").set_input_files(votes)
        lea.see(re.compile("of the first 24 rows 0 are rejected"))
        assert re.search(r"labels: .*3 raters", lea.text())
        lea.page.get_by_text("Words, answers, quiz, limits").click()
        lea.click("tab", "Quiz")
        lea.fill("Questions (0: no quiz)", "0")
        lea.page.get_by_label("Question 1").wait_for(state="hidden")
        lea.click("tab", "Limits")
        lea.fill("Known items among what a person sees, percent", "30")
        lea.click("button", "Create the project")
        lea.see(re.compile(f"Project votes: {N} items"))

        # Gold: two of the rows on which all votes agree.
        lea.go("known-items")
        lea.page.get_by_text("Only where all votes of the data agree").click()
        lea.ready()
        lea.see("2 items that nobody has opened yet")
        for n in (1, 2):
            side = "A" if "right" in lea.page.get_by_role("region", name="Response A").first.inner_text() else "B"
            lea.click("button", f"{side} is right", exact=True)
            lea.see(f"{n} known items; 30%")

        # Two annotators, by links.
        lea.go("people")
        lea.fill("Invite annotators", "anna, ben")
        lea.click("button", "Make their links")
        lea.see("ben: this link is shown this once")
        links = [one.inner_text().strip() for one in lea.page.locator("[data-testid=stCode]").all()]
        assert len(links) == 2
        anna, ben = (Visitor(browser, link) for link in links)

        # They work: Ben is wrong about question 7, everybody is right about all the rest.
        for person, wrong in ((anna, ()), (ben, (7,))):
            while "Nothing left" not in person.text():
                item = _item(person)
                right = person.chosen_first()
                person.press("1" if right is (item not in wrong) else "7")

        # The lead reads Anna's answer on question 3, returns it, and she answers again.
        lea.go("answers")
        lea.choose("Who", "anna")
        lea.fill("Prompt contains", "question 3")
        lea.see("1 answers")
        lea.choose("Read one", "anna")
        lea.fill("Comment (the annotator reads it)", "How much better is it?")
        lea.click("button", "Return to the annotator")
        lea.see("Returned: 1")
        anna.page.reload()
        anna.see("Returned by lea: How much better is it?")
        assert _item(anna) == 3
        anna.press("3" if anna.chosen_first() else "5")

        # What they disagree on is adjudicated.
        lea.go("agreement")
        lea.see("Items on which people disagree: 1")
        lea.click("button", "Adjudicate what people disagree on")
        lea.see(re.compile("votes-disputes: 1 items"))
        lea.page.locator("[data-testid=stSidebarNavLink]").first.click()
        lea.clicks += 1
        lea.ready()
        lea.page.locator("[data-testid=stSidebar]").get_by_role("combobox").first.click()
        lea.page.get_by_role("option", name="votes-disputes").click()
        lea.clicks += 2
        lea.ready()
        assert _item(lea) == 7
        lea.fill("Why?", "Seven and seven are fourteen.")
        lea.page.get_by_role("button", name=re.compile("A much better")).focus()
        lea.press("1" if lea.chosen_first() else "7")

        # Committed, and taken out.
        lea.go("project")
        lea.page.locator("[data-testid=stSidebar]").get_by_role("combobox").first.click()
        lea.page.get_by_role("option", name="votes", exact=True).click()
        lea.clicks += 2
        lea.ready()
        lea.click("button", "Make the labels a dataset version")
        lea.see(re.compile("votes-labels@v1: 6 rows"))
        lea.page.get_by_text("Take out as files").click()
        lea.choose("Form", "trl")
        lea.click("button", "Prepare the file")
        with lea.page.expect_download() as download:
            lea.click("button", re.compile("Save votes-labels"))
        assert download.value.suggested_filename == "votes-labels-v1-trl.zip"
        spent = time.monotonic() - begin
        with StudioClient(running.url, token=token) as program:  # what the pages did, seen by a program
            assert [one["name"] for one in program.projects()] == ["votes", "votes-disputes"]
            answers = list(program.answers("votes"))
            assert {one["rater"] for one in answers} == {"anna", "ben"}
            with pytest.raises(StudioError, match="invite"):
                StudioClient(running.url, token=links[0].rpartition("=")[2]).invite("eve")
        browser.close()
    with open_warehouse(home / "warehouse.duckdb", read_only=True) as connection:
        rows = checkout(
            connection, resolve(connection, "votes-labels@v1"), columns=("prompt", "responses", "p", "n_votes")
        )
    for row in rows.to_pylist():
        best = [json.loads(text)[0]["content"].startswith("right") for text in row["responses"]].index(True)
        assert row["p"][best] == 1.0, row
        assert row["n_votes"] == (1 if "question 7" in row["prompt"] else 2)
    print(
        f"from the file to the version in {spent:.0f} s; the lead: {lea.clicks} clicks, "
        f"annotators: {anna.keys + ben.keys} keys, {anna.clicks + ben.clicks} clicks"
    )
