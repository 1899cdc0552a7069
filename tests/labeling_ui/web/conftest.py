"""A studio with a project for each task, and browsers that are signed in by keyboard."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
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
from tests.labeling_ui.web.keyboard_tasks import TASKS

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@dataclass(frozen=True)
class Served:
    """Where the studio is, the tokens by name and its home. The person of a task is a member of its project alone."""

    url: str
    tokens: dict[str, str]
    home: Path


def _write(home: Path, name: str, rows: list[dict[str, Any]]) -> str:
    (home / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    version = ingest(home / f"{name}.jsonl", dataset=name).version
    assert version is not None
    return version.ref


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A studio with a project for each task and somebody who works in it alone, and a lead who may do it all."""
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
                    overlap=2,
                    gold_share=0.0,
                    repeat_share=0.0,
                    ask_rationale=name == "reason",
                )
                create_project(ledger, name, task=definition, data=refs[id(rows)])
                tokens[name] = add_person(ledger, name, role="annotator")
                add_member(ledger, name, name)
            tokens["lea"] = add_person(ledger, "lea", role="lead")
            tokens["both"] = add_person(ledger, "both", role="annotator")
            tokens["writer"] = add_person(ledger, "writer", role="annotator")
            for task, name in (("ratings", "both"), ("turns", "both"), ("edit", "writer")):
                definition = replace(read_definition(task), gold_share=0.0, repeat_share=0.0)
                create_project(ledger, f"other-{task}", task=definition, data=refs[id(TASKS[task][0])])
                add_member(ledger, f"other-{task}", name)
        server = Server(home)
        server.start()
        yield Served(server.url, tokens, home)
        server.kill()


@pytest.fixture
def sign_in(served: Served) -> Iterator[Callable[..., Any]]:
    """The first page of somebody who signed in by keyboard; options are those of a browser's context."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])

        def open_(name: str, **options: Any) -> Any:
            page = browser.new_page(**{"viewport": {"width": 1400, "height": 900}, **options})
            page.set_default_timeout(60_000)
            page.goto(f"{served.url}/enter?token={served.tokens[name]}")
            page.keyboard.press("Tab")
            page.keyboard.press("Enter")
            return page

        yield open_
        browser.close()
