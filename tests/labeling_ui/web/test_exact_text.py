"""What an annotator reads, in a real browser: the exact view is the source; keys of steps; scrolling is work."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_pipelines.ingest.command import ingest
from labeling_ui.benchmarks.process import Server
from labeling_ui.projects.definition import read_definition
from labeling_ui.projects.people import add_person
from labeling_ui.projects.project import create_project
from rmkit.ledger import open_ledger
from tests.labeling_ui.web.snippets import SNIPPETS

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")]

KEEP_REPORTS = """() => {
    window.reports = [];
    const send = navigator.sendBeacon.bind(navigator);
    navigator.sendBeacon = (path, body) => {
        body.text().then((text) => window.reports.push(JSON.parse(text).active_ms));
        return send(path, body);
    };
}"""
QUIET = """() => document.querySelector('[data-testid=stApp]')?.dataset.testScriptState === 'notRunning'
    && !document.querySelector('.rmkit-answer')?.sheet?.sent"""


@pytest.fixture
def studio(home: Path, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Rows and a task in, a signed-in page of their project out."""
    running = Server(home)
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])

        def open_(rows: list[dict[str, Any]], task: str, **options: Any) -> Any:
            (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            ingest(tmp_path / "rows.jsonl", dataset="rows")
            with open_ledger() as ledger:
                own = {"quiz": (), "gold_share": 0.0, "repeat_share": 0.0, **options}
                create_project(ledger, "rows", task=replace(read_definition(task), **own), data="rows@v1")
                token = add_person(ledger, "anna", role="annotator")
            running.start()
            page = browser.new_page(viewport={"width": 1400, "height": 800})
            page.set_default_timeout(60_000)
            page.goto(f"{running.url}/enter?token={token}")
            page.get_by_role("button", name="Enter").click()
            page.locator(".st-key-answer-bar button").first.wait_for()
            page.wait_for_function(QUIET)
            return page

        yield open_
        browser.close()
    running.kill()


def _payloads() -> list[dict[str, Any]]:
    with open_ledger() as ledger:
        return [recorded.event.payload for recorded in ledger.events(kinds=["judgment"])]


def _next(page: Any, key: str) -> None:
    before = page.locator(".rmkit-text").first.inner_text()
    page.keyboard.press(key)
    page.wait_for_function("before => document.querySelector('.rmkit-text')?.innerText !== before", arg=before)
    page.wait_for_function(QUIET)


def test_the_exact_view_equals_the_source_and_the_answer_bar_stays_in_view(studio: Callable[..., Any]) -> None:
    rows = [
        {"prompt": f"{number} {text}", "chosen": text, "rejected": f"{text}{text}"}
        for number, text in enumerate(SNIPPETS)
    ]
    page = studio(rows, "pairwise", overlap=1)
    page.keyboard.press("p")
    page.locator(".rmkit-text .exact").first.wait_for()
    seen = {}
    for _ in SNIPPETS:
        page.wait_for_timeout(50)
        prompt, *responses = page.locator(".rmkit-text .exact").evaluate_all("all => all.map(one => one.textContent)")
        number, _, text = prompt.partition(" ")
        seen[int(number)] = text, sorted(responses, key=len)
        bar = page.locator(".st-key-answer-bar").bounding_box()
        assert bar["y"] + bar["height"] <= 801
        if len(seen) < len(SNIPPETS):
            _next(page, "1")
    # Ingest strips the ends of a text; everything between them is the source.
    for number, text in enumerate(SNIPPETS):
        shown, responses = seen[number]
        assert shown.rstrip() == text.rstrip(), number
        assert responses[0].strip() == text.strip(), number


def test_a_digit_is_the_step_and_two_digits_are_one_number(studio: Callable[..., Any]) -> None:
    """1 was "all right" and 3 step 2; steps from 9 on had no key."""
    steps = [f"Step {n}: {n} + 1 = {n + 1}." for n in range(1, 15)]
    rows = [{"problem": f"Problem {n}?", "steps": steps, "label": -1, "final_answer_correct": True} for n in range(6)]
    page = studio(rows, "steps", overlap=1)
    for keys in ("0", "3", "12"):
        for key in keys[:-1]:
            page.keyboard.press(key)
            page.get_by_text(re.compile("a second digit, or Enter")).wait_for()
        _next(page, keys[-1])
    page.keyboard.press("1")
    page.get_by_text(re.compile("a second digit, or Enter")).wait_for()
    _next(page, "Enter")
    labels = [payload["step_labels"] for payload in _payloads()]
    assert [one.index(0.0) + 1 if 0.0 in one else 0 for one in labels] == [0, 3, 12, 1]


def test_reading_and_scrolling_is_work_and_a_pause_is_not_all_of_it(studio: Callable[..., Any]) -> None:
    """Work had stopped 30 s after the last key, however much a person scrolled."""
    text = "A long text. " * 2000
    page = studio([{"prompt": f"Q{n}", "chosen": text, "rejected": f"{text} {n}"} for n in range(3)], "pairwise")
    page.clock.install()
    page.reload()
    page.locator(".st-key-answer-bar button").first.wait_for()
    page.wait_for_function(QUIET)
    for _ in range(4):
        page.clock.fast_forward(40_000)
        page.mouse.wheel(0, 200)
        page.wait_for_timeout(100)
    page.clock.fast_forward(600_000)
    page.evaluate("document.dispatchEvent(new Event('scroll'))")
    page.evaluate(KEEP_REPORTS)
    _next(page, "1")
    assert 215_000 <= page.evaluate("window.reports[0]") <= 240_000  # four times 40 s, and 60 s of the ten minutes
    (payload,) = _payloads()
    assert 0 < payload["active_ms"] <= payload["wall_ms"]  # no more is believed than the server's own clock allows


def test_a_text_of_three_megabytes_is_laid_out_only_when_it_is_asked_for(studio: Callable[..., Any]) -> None:
    text = "".join(f"Line {n} <b>&amp; -> \u05d0\n" for n in range(130_000)) + "end"
    page = studio([{"prompt": "Long?", "chosen": text, "rejected": "short"}], "pairwise", overlap=1)
    laid_out = "document.querySelector('.rmkit-text .responses').innerText.length"
    assert 5000 < page.evaluate(laid_out) < 7000
    page.get_by_role("button", name=f"Show all {len(text):,} characters").click()
    page.get_by_role("button", name="Show less").wait_for()
    whole = page.locator(".rmkit-text .long .exact").evaluate_all("all => all.map(one => one.textContent)")
    assert whole == [text]
