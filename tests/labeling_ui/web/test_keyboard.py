"""Every task by keyboard alone in a real browser, from the sign-in to the last item; no mouse is ever moved."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_pipelines.ingest.command import ingest
from labeling_ui.benchmarks.process import Server
from labeling_ui.projects.definition import Question, read_definition
from labeling_ui.projects.members import add_member
from labeling_ui.projects.people import add_person
from labeling_ui.projects.project import create_project
from rmkit.ledger import open_ledger

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")]

QUIET = """() => document.querySelector('[data-testid=stApp]')?.dataset.testScriptState === 'notRunning'
    && !document.querySelector('[data-testid=stMain] [data-stale=true]')"""
READY = """before => { const sheet = document.querySelector('.rmkit-answer')?.sheet;
    return sheet && sheet.id !== before && !sheet.sent; }"""
DONE = "Nothing left for you here"
N = 3  # items of each project

PAIRS = [
    {"prompt": f"Question {n}?", "chosen": f"Yes, {n} is right. It is right twice.", "rejected": f"No {n}."}
    for n in range(N)
]
LISTS = [
    {
        "prompt": f"Name {n}",
        "responses": [f"Name {n} is {k}." for k in range(4)],
        "scores": [float(k) for k in range(4)],
        "rubric": [{"criterion": "Is it right?"}, {"criterion": "Is it short?", "levels": {"1": "no", "2": "yes"}}],
    }
    for n in range(N)
]
SINGLES = [{"prompt": f"Question {n}?", "completion": f"Answer {n}.", "label": True} for n in range(N)]
STEPS = [
    {
        "problem": f"Problem {n}?",
        "steps": [f"{n} + {k}." for k in range(12)],
        "label": -1,
        "final_answer_correct": True,
    }
    for n in range(N)
]
TRACES = [
    {
        "prompt": [{"role": "user", "content": f"Fix {n}"}],
        "completion": [
            {
                "role": "assistant",
                "content": "I look.",
                "tool_calls": [{"id": "c", "type": "function", "function": {"name": "read", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "c", "name": "read", "content": "it is broken\n" * 50},
            {"role": "assistant", "content": "Done."},
        ],
        "label": True,
    }
    for n in range(N)
]

# What is pressed for one item of each task, and what the first answer must say.
TASKS: dict[str, tuple[list[dict[str, Any]], str, list[str]]] = {
    "pairwise": (PAIRS, "pairwise", ["7"]),
    "reason": (PAIRS, "pairwise", ["t", "text:B is right", "Escape", "1"]),
    "reaction": (SINGLES, "reaction", ["2"]),
    "steps": (STEPS, "steps", ["1", "2"]),
    "ranking": (LISTS, "ranking", ["2", "1", "1", "4", "Enter"]),
    "ratings": (LISTS, "ratings", ["5", "ArrowRight", "3", "ArrowLeft", "Backspace", "Enter"]),
    "rubric": (LISTS, "rubric", ["1", "0", "1", "ArrowDown", "2", "Enter"]),
    "rubric_review": (LISTS, "rubric_review", ["1", "2", "t", "text: And is it kind?", "Escape", "Enter"]),
    "turns": (TRACES, "turns", ["1", "3", "Enter"]),
    "trace": (TRACES, "trace", ["ArrowDown", "3", "Enter"]),
    "spans": (PAIRS, "spans", ["ArrowRight", "Shift+ArrowRight", "1", "n", "3", "Backspace", "Enter"]),
    "edit": (PAIRS, "edit", ["2", "t", "text: Or so.", "Control+Enter"]),
}


def _write(home: Path, name: str, rows: list[dict[str, Any]]) -> str:
    (home / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    version = ingest(home / f"{name}.jsonl", dataset=name).version
    assert version is not None
    return version.ref


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str], Path]]:
    """A studio with a project for each task and somebody who works in it alone; address, tokens and its home."""
    home = tmp_path_factory.mktemp("keyboard")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RMKIT_HOME", str(home))
        with open_ledger() as ledger:
            tokens = {}
            refs = {id(rows): _write(home, f"rows-{n}", rows) for n, (rows, _, _) in enumerate(TASKS.values())}
            quiz = (Question(text="What first?", choices=("style", "truth"), answer=1),)
            for name, (rows, task, _) in TASKS.items():
                definition = replace(
                    read_definition(task),
                    quiz=quiz if name == "pairwise" else (),
                    overlap=1,
                    gold_share=0.0,
                    repeat_share=0.0,
                    ask_rationale=name == "reason",
                )
                create_project(ledger, name, task=definition, data=refs[id(rows)])
                tokens[name] = add_person(ledger, name, role="annotator")
                add_member(ledger, name, name)
            tokens["both"] = add_person(ledger, "both", role="annotator")
            for task in ("ratings", "turns"):
                definition = replace(read_definition(task), gold_share=0.0, repeat_share=0.0)
                create_project(ledger, f"other-{task}", task=definition, data=refs[id(TASKS[task][0])])
                add_member(ledger, f"other-{task}", "both")
        server = Server(home)
        server.start()
        yield server.url, tokens, home
        server.kill()


@pytest.fixture
def enter(served: tuple[str, dict[str, str], Path]) -> Iterator[Callable[[str], Any]]:
    """The first page of somebody who signed in by keyboard."""
    url, tokens, _ = served
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])

        def open_(name: str) -> Any:
            page = browser.new_page(viewport={"width": 1400, "height": 900})
            page.set_default_timeout(60_000)
            page.goto(f"{url}/enter?token={tokens[name]}")
            page.keyboard.press("Tab")
            page.keyboard.press("Enter")
            return page

        yield open_
        browser.close()


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
def test_a_task_from_the_sign_in_to_the_last_item(
    enter: Callable[[str], Any], served: tuple[str, dict[str, str], Path], name: str
) -> None:
    page = enter(name)
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
    said = _said(served[2], name)
    assert len(said) == N
    _check(name, said[0])


def test_keys_work_at_once_after_choosing_a_project_and_after_a_refusal(enter: Callable[[str], Any]) -> None:
    page = enter("both")
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


def test_what_is_typed_survives_a_reload(enter: Callable[[str], Any]) -> None:
    page = enter("edit")  # all items are answered by now
    page.get_by_text(DONE).wait_for()
    page.wait_for_function(QUIET)
    _press(page, ["u"])
    page.wait_for_function(READY, arg="")
    with page.expect_response(lambda response: "/drafts/" in response.url and response.status == 204):
        _press(page, ["t", "text: Half a sent"])
    page.reload()
    page.wait_for_function(READY, arg="")
    assert page.get_by_label("Your version").input_value().endswith(" Half a sent")
