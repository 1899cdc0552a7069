"""The annotator's pages under axe-core, light and dark: no serious violation.

axe-core is not of this project: RMKIT_AXE names its axe.min.js, and without it these tests are skipped.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.labeling_ui.web.conftest import CHROMIUM, Served
from tests.labeling_ui.web.keyboard_tasks import TASKS
from tests.labeling_ui.web.test_keyboard import QUIET, READY

pytest.importorskip("playwright.sync_api")
AXE = Path(os.environ.get("RMKIT_AXE", "axe.min.js"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here"),
    pytest.mark.skipif(not AXE.is_file(), reason="RMKIT_AXE names no axe.min.js"),
]

RUN = """async () => (await axe.run()).violations.filter(one => ["serious", "critical"].includes(one.impact))
    .flatMap(one => one.nodes.map(node => `${one.id}: ${node.target} ${node.failureSummary}`))"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_of_an_annotator_has_a_serious_violation(
    sign_in: Callable[..., Any], served: Served, scheme: str
) -> None:
    page = sign_in("lea", color_scheme=scheme)
    faults = {}

    def check(name: str) -> None:
        page.wait_for_function(QUIET)
        page.wait_for_timeout(300)
        page.evaluate(AXE.read_text("utf-8"))
        faults[name] = page.evaluate(RUN)

    page.locator("[data-testid=stMain]").wait_for()
    for name in TASKS:
        page.goto(f"{served.url}/?project={name}")
        page.wait_for_function(READY, arg="")
        check(name)
    page.keyboard.press("?")
    check("keys")
    page.goto(f"{served.url}/my-work?project=edit")
    page.get_by_role("heading", name="My work").wait_for()
    check("my work")
    page.goto(f"{served.url}/enter")
    page.wait_for_timeout(300)
    page.evaluate(AXE.read_text("utf-8"))
    faults["sign in"] = page.evaluate(RUN)
    assert {(name, fault) for name, found in faults.items() for fault in found} == set()
