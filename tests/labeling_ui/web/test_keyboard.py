"""Every task by keyboard alone in a real browser, from the sign-in to the last item; no mouse is ever moved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rmkit.ledger import open_ledger
from tests.labeling_ui.web.conftest import CHROMIUM, Served
from tests.labeling_ui.web.keyboard_tasks import TASKS, N

pytest.importorskip("playwright.sync_api")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")]

Enter = Callable[..., Any]
QUIET = """() => document.querySelector('[data-testid=stApp]')?.dataset.testScriptState === 'notRunning'
    && !document.querySelector('[data-testid=stMain] [data-stale=true]')"""
READY = """before => { const sheet = document.querySelector('.rmkit-answer')?.sheet;
    return sheet && sheet.id !== before && !sheet.sent; }"""
DONE = "Nothing left for you here"


def _press(page: Any, keys: list[str]) -> None:
    for key in keys:
        if key.startswith("text:"):
            page.keyboard.press("Control+End")
            page.keyboard.type(key.removeprefix("text:"))
        else:
            page.keyboard.press(key)


def _shown(page: Any) -> str:
    return str(page.evaluate("document.querySelector('.rmkit-answer').sheet.id"))


def _said(home: Path, rater: str) -> list[dict[str, Any]]:
    with open_ledger(home / "ledger.sqlite") as ledger:
        events = ledger.events(kinds=["judgment", "edit", "reaction"])
        return [one.event.payload for one in events if one.event.actor == rater]


def _from_first_shown(payload: dict[str, Any]) -> list[int]:
    return [payload["ranks"][position] for position in payload["shown_order"]]


def _check(name: str, payload: dict[str, Any]) -> None:
    scores = [(one["aspect"], one["response"], one["value"]) for one in payload.get("scores", ())]
    order = payload.get("shown_order", [0])
    match name:
        case "pairwise":
            assert (_from_first_shown(payload), payload["strength"]) == ([1, 0], 3.0)
        case "reason":
            assert (_from_first_shown(payload)[0], payload["rationale"]) == (0, "B is right")
        case "reaction":
            assert payload["value"] == 1.0
        case "steps":
            assert payload["step_labels"] == [1.0] * 11 + [0.0]
        case "ranking":
            assert _from_first_shown(payload) == [1, 0, 0, 2]
        case "ratings":  # A is 5; the cursor went over B to C, and what C got was taken back with B's cell left empty
            assert scores[0] == ("helpfulness", order[0], 5.0)
        case "rubric":
            assert scores[:3] == [("Is it right?", order[k], v) for k, v in enumerate([1.0, 0.0, 1.0])]
            assert scores[3] == ("Is it short?", order[3], 2.0)
        case "rubric_review":
            assert payload["spans"] == [
                {"criterion": 0, "decision": "accept"},
                {"criterion": 1, "decision": "edit", "text": "Is it short? And is it kind?"},
            ]
        case "turns":
            assert scores == [("turn 1", 0, 0.0), ("turn 2", 0, 1.0)]
        case "trace":
            assert scores == [("turn 2", 0, 1.0)]
        case "spans":
            (span,) = payload["spans"]
            assert (span["response"], span["start"], span["label"]) == (order[0], 0, "wrong")
            assert len(span["text"].split()) == 2
        case "edit":
            assert payload["edit"][-1]["content"].endswith(" Or so.")
            assert payload["extra"]["edited"] == order[1]


@pytest.mark.parametrize("name", TASKS)
def test_a_task_from_the_sign_in_to_the_last_item(sign_in: Enter, served: Served, name: str) -> None:
    page = sign_in(name)
    if name == "pairwise":
        page.get_by_text("What first?").wait_for()
        page.wait_for_function(QUIET)
        _press(page, ["2", "Enter"])
    before = ""
    for number in range(N):
        page.wait_for_function(READY, arg=before)
        page.wait_for_function(QUIET)
        assert page.evaluate("document.querySelector('[data-testid=stMain]').scrollTop") == 0
        before = _shown(page)
        _press(page, TASKS[name][2])
        if number == N - 1:
            page.get_by_text(DONE).wait_for()
    said = _said(served.home, name)
    assert len(said) == N
    _check(name, said[0])


def test_keys_work_at_once_after_choosing_a_project_and_after_a_refusal(sign_in: Enter) -> None:
    page = sign_in("both")
    page.wait_for_function(READY, arg="")
    first = page.get_by_role("heading").first.inner_text()
    page.locator("[data-testid=stSidebar] input[role=combobox]").focus()
    _press(page, ["ArrowDown", "ArrowDown", "Enter"])
    page.wait_for_function("before => document.querySelector('h3')?.innerText !== before", arg=first)
    page.wait_for_function(QUIET)
    _press(page, ["Enter"])  # nothing is chosen yet: refused, beside the controls
    refused = page.locator(".rmkit-answer [role=alert]")
    refused.wait_for()
    assert "at least one" in refused.inner_text()
    assert page.evaluate("document.activeElement.className") == "rmkit-answer"
    before = _shown(page)
    _press(page, ["1", "Enter"])
    page.wait_for_function(READY, arg=before)
    page.wait_for_function("document.getElementById('rmkit-live').textContent.startsWith('Item 2.')")
    _press(page, ["?"])
    page.get_by_role("dialog", name="Keys").wait_for()
    _press(page, ["Escape"])
    page.get_by_role("dialog", name="Keys").wait_for(state="hidden")


def test_what_is_typed_survives_a_reload(sign_in: Enter) -> None:
    page = sign_in("writer")
    page.wait_for_function(READY, arg="")
    page.wait_for_function(QUIET)
    with page.expect_response(lambda response: "/drafts/" in response.url and response.status == 204):
        _press(page, ["t", "text: Half a sent"])
    page.reload()
    page.wait_for_function(READY, arg="")
    assert page.get_by_label("Your version").input_value().endswith(" Half a sent")
