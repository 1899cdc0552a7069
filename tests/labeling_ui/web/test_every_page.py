"""Every page and every task of a studio in use, light and dark: axe-core sees no serious violation, no page says that
it failed, and none is wider than the window at 1400, 800 and 390 px.

axe-core is not of this project: RMKIT_AXE names its axe.min.js, and without it that part is left out. RMKIT_SHOTS
names a folder for pictures, for people to look at.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.labeling_ui.web.conftest import CHROMIUM
from tests.labeling_ui.web.lived_in import MAIN, PAGES, TASKS, lived_in
from tests.labeling_ui.web.test_accessibility import AXE, RUN
from tests.labeling_ui.web.test_keyboard import QUIET

playwright = pytest.importorskip("playwright.sync_api")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")]
SHOTS = os.environ.get("RMKIT_SHOTS")
WIDTHS = {1400: 900, 800: 1100, 390: 844}
WIDER = """() => { const main = document.querySelector('[data-testid=stMain]') ?? document.documentElement;
    return main.scrollWidth - main.clientWidth; }"""
PRESS = """name => [...document.querySelectorAll('[data-testid=stMain] summary')]
    .forEach(one => one.parentElement.open || one.click())"""


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    with pytest.MonkeyPatch.context() as patch, lived_in(tmp_path_factory.mktemp("lived"), patch) as served:
        yield served


def _addresses() -> Iterator[tuple[str, str]]:
    """(who, path) of every page: the annotator's by task, then a lead's."""
    for name in (MAIN, "suggested", "quiz", *TASKS, f"{MAIN}-disputes"):
        yield "lea" if name.endswith("disputes") else "ben", f"?project={name}"
    yield "ben", f"my-work?project={MAIN}"
    for page in PAGES:
        yield "lea", f"{page}?project={MAIN}"
    yield "lea", "agreement?project=suggested"
    yield "lea", "task?project=live"
    yield "lea", "project?project=live"


def _named(path: str) -> str:
    page, _, project = path.partition("?project=")
    return "-".join(filter(None, (page or "annotate", "" if project == MAIN else project)))


def _pages(studio: tuple[str, dict[str, str]], scheme: str, width: int) -> Iterator[tuple[str, Any]]:
    """Each page once it is complete, everything that folds open."""
    url, tokens = studio
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        size = {"width": width, "height": WIDTHS[width]}
        stranger = browser.new_context(viewport=size, color_scheme=scheme).new_page()
        for name, path in (("entrance", ""), ("sign-in", "enter"), ("wrong-link", "enter?token=wrong")):
            stranger.goto(f"{url}/{path}")
            if name == "entrance":
                stranger.get_by_text("Enter a token").wait_for(timeout=60_000)
            yield name, stranger
        pages = {}
        for who in ("ben", "lea"):
            pages[who] = browser.new_context(viewport=size, color_scheme=scheme).new_page()
            pages[who].set_default_timeout(60_000)
            pages[who].goto(f"{url}/enter?token={tokens[who]}")
            if who == "ben":
                yield "enter", pages[who]
            pages[who].get_by_role("button", name="Work as").or_(pages[who].get_by_role("button", name="Enter")).click()
            pages[who].locator("[data-testid=stMain]").wait_for()
        for who, path in _addresses():
            page = pages[who]
            page.goto(f"{url}/{path}")
            page.wait_for_function(QUIET)
            page.wait_for_function("() => document.querySelector('[data-testid=stMain]').innerText.trim().length > 20")
            page.wait_for_function(QUIET)
            page.wait_for_timeout(400)
            if not path.startswith("?"):
                page.evaluate(PRESS)
                page.wait_for_timeout(400)
            if path == "?project=suggested":
                if not page.get_by_text("Suggested:").count():  # there since an earlier run: a key would answer
                    page.keyboard.press("4")  # a tie is no suggestion here, so it is shown
                page.get_by_text("Suggested:").wait_for()
                page.wait_for_function(QUIET)
            if path == f"?project={MAIN}":
                yield "annotate", page
                page.keyboard.press("d")
                page.get_by_role("button", name="Differences").locator("visible=true").wait_for()
                page.wait_for_timeout(700)
                page.wait_for_function(QUIET)
                yield "differences", page
                page.keyboard.press("d")
                page.wait_for_timeout(500)
                continue
            yield ("my-own-work" if who == "ben" and path.startswith("my-work") else _named(path)), page
        browser.close()


@pytest.mark.parametrize(
    ("width", "scheme"), [(1400, "light"), (1400, "dark"), (800, "light"), (390, "light"), (800, "dark"), (390, "dark")]
)
def test_every_page_stands_complete_fits_and_has_no_serious_violation(
    studio: tuple[str, dict[str, str]], scheme: str, width: int
) -> None:
    faults, seen = [], []
    script = AXE.read_text("utf-8") if AXE.is_file() else None
    for name, page in _pages(studio, scheme, width):
        seen.append(name)
        if SHOTS:
            page.screenshot(path=f"{SHOTS}/{name}-{scheme}-{width}.png")
        if (wider := page.evaluate(WIDER)) > 1:
            faults.append(f"{name}: {wider} px wider than {width}")
        if page.locator("[data-testid=stException]").count():
            faults.append(f"{name}: {page.locator('[data-testid=stException]').first.inner_text()[:200]}")
        if script:
            page.evaluate(script)
            faults += [f"{name}: {fault}" for fault in page.evaluate(RUN)]
    print(f"{width} px, {scheme}, {'with' if script else 'without'} axe-core: {len(seen)} pages: {', '.join(seen)}")
    assert not faults, "\n".join(dict.fromkeys(faults))
