"""A home with a small dataset of pairs, lists and steps, and a project on it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from data_pipelines.ingest.command import ingest
from labeling_ui.projects.definition import TaskDefinition
from labeling_ui.projects.people import Person
from labeling_ui.projects.project import Project, create_project
from rmkit.ledger import Ledger, open_ledger

ANNA, BEN, CARA, LEA = (
    Person("anna", "annotator"),
    Person("ben", "annotator"),
    Person("cara", "annotator"),
    Person("lea", "lead"),
)


@pytest.fixture
def ledger(home: Path) -> Iterator[Ledger]:
    with open_ledger() as opened:
        yield opened


@pytest.fixture(scope="session")
def filled_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with twelve pairs whose chosen response says so; made once, copied by each test."""
    home = tmp_path_factory.mktemp("filled") / "home"
    rows = [
        {"prompt": f"Question {n}: what is {n} + {n}?", "chosen": f"right: {2 * n}", "rejected": f"wrong: {2 * n + 1}!"}
        for n in range(12)
    ]
    file = home.parent / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RMKIT_HOME", str(home))
        ingest(file, dataset="sums")
    return home


@pytest.fixture
def pairs(home: Path, filled_home: Path) -> str:
    """A dataset version of twelve pairs in the test's own home."""
    home.mkdir(exist_ok=True)
    shutil.copy(filled_home / "warehouse.duckdb", home / "warehouse.duckdb")
    return "sums@v1"


@pytest.fixture
def singles(pairs: str, tmp_path: Path) -> str:
    """A dataset version of six single responses, each with a thumb."""
    rows = [{"prompt": f"Question {n}?", "completion": f"right: {n}", "label": n % 2 == 0} for n in range(6)]
    file = tmp_path / "singles.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    version = ingest(file, dataset="singles").version
    assert version is not None
    return version.ref


@pytest.fixture
def solutions(pairs: str, tmp_path: Path) -> str:
    """A dataset version of four solutions of three steps."""
    rows = [
        {
            "problem": f"Problem {n}?",
            "steps": [f"{n} + {k}." for k in range(3)],
            "label": -1,
            "final_answer_correct": True,
        }
        for n in range(4)
    ]
    file = tmp_path / "solutions.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    version = ingest(file, dataset="solutions").version
    assert version is not None
    return version.ref


@pytest.fixture
def make_project(ledger: Ledger, pairs: str) -> Callable[..., Project]:
    def make(name: str = "sums", *, gold: str | None = None, data: str = pairs, **options: Any) -> Project:
        settings = {"name": "t", "kind": "pairwise", "title": "T", "question": "Q?", "gold_share": 0.0}
        task = TaskDefinition(**{**settings, "repeat_share": 0.0, **options})
        return create_project(ledger, name, task=task, data=data, gold=gold)

    return make
