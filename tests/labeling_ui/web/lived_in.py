"""A studio in use, for tests that look at every page: a project for each task, answers, comments, rules, a pause."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from data_pipelines import sample
from data_pipelines.ingest.command import ingest
from labeling_ui.benchmarks.process import Server
from labeling_ui.desk.answers import Answer
from labeling_ui.desk.suggestions import write_suggestions
from labeling_ui.projects.definition import Question, read_definition
from labeling_ui.projects.disputes import create_adjudication
from labeling_ui.projects.groups import Rule, put_group, put_rules
from labeling_ui.projects.members import add_member
from labeling_ui.projects.people import Person, add_key, add_person
from labeling_ui.projects.project import create_project, open_project
from labeling_ui.projects.reviews import write_review
from labeling_ui.projects.revisions import revise_task
from rmkit.cli.main import call
from rmkit.ledger import Ledger, open_ledger
from tests.labeling_ui.web.keyboard_tasks import LISTS, SINGLES, STEPS, TRACES
from warehouse.events.sync import sync
from warehouse.store import open_warehouse

MAIN, N = "pairs", 24
LEA, ANNA, BEN, CARA = (
    Person("lea", "admin"),
    Person("anna", "annotator"),
    Person("ben", "annotator"),
    Person("cara", "annotator"),
)
LONG = (
    "Sorting a copy leaves the list as it was, and equal names keep their order. For names in another language, pass a "
    "key that knows its alphabet; for very many of them, `names.sort()` sorts in place and needs no second list. Names "
    "that differ only in case come apart: `key=str.casefold` keeps them together."
)


def _other(n: int) -> str:
    """A reply of another kind, or nearly the same one."""
    if n % 2:
        return (
            f"You could write a loop that swaps neighbors {n} times.\n\n| way | steps |\n|---|---:|\n| loop | {n * n} |"
        )
    near = LONG.replace("keep their order", "may change places").replace(
        "sorts in place and needs", "is slower and takes"
    )
    return f"Use `sort(names)`:\n\n```python\nnames.sort()[:{n}]\n```\n\n{near}"


PAIRS = [
    {
        "prompt": f"Question {n}: how do I sort {n} names?\nIn Python, please.",
        "chosen": f"Use `sorted(names)`:\n\n```python\nnames = sorted(names)[:{n}]\n```\n\n{LONG}",
        "rejected": _other(n),
    }
    for n in range(N)
]
TASKS: dict[str, tuple[list[dict[str, Any]], str]] = {
    "reaction": (SINGLES, "reaction"),
    "steps": (STEPS, "steps"),
    "ranking": (LISTS, "ranking"),
    "ratings": (LISTS, "ratings"),
    "rubric": (LISTS, "rubric"),
    "rubric_review": (LISTS, "rubric_review"),
    "turns": (TRACES, "turns"),
    "trace": (TRACES, "trace"),
    "spans": (PAIRS, "spans"),
    "edit": (PAIRS, "edit"),
    "live": (PAIRS, "live"),
}
PAGES = (  # of a lead, by path
    "my-work",
    "new-project",
    "project",
    "people",
    "answers",
    "agreement",
    "task",
    "known-items",
    "playground",
    "data",
    "datasets",
    "models",
    "rubrics",
    "settings",
)


@contextmanager
def lived_in(home: Path, patch: Any) -> Iterator[tuple[str, dict[str, str]]]:
    """Where it is served, and the tokens by name."""
    patch.setenv("RMKIT_HOME", str(home))
    with open_ledger() as ledger:
        tokens = {person.name: add_person(ledger, person.name, role=person.role) for person in (LEA, ANNA, BEN, CARA)}
        refs = {
            id(rows): _stored(home, number, rows) for number, rows in enumerate((PAIRS, LISTS, SINGLES, STEPS, TRACES))
        }
        quiz = (Question(text="What comes first?", choices=("style", "truth"), answer=1),)
        task = replace(read_definition("pairwise"), gold_share=0.2, repeat_share=0.1, quiz=())
        known = _stored(home, 9, PAIRS[:5])
        create_project(ledger, MAIN, task=task, data=refs[id(PAIRS)], gold=known, author="lea")
        for name, (rows, kind) in TASKS.items():
            plain = replace(read_definition(kind), gold_share=0.0, repeat_share=0.0, quiz=())
            create_project(ledger, name, task=plain, data=refs[id(rows)])
        suggests = replace(task, suggestions="after", suggestion_share=1.0, gold_share=0.0, repeat_share=0.0)
        suggested = create_project(ledger, "suggested", task=suggests, data=refs[id(PAIRS)])
        write_suggestions(suggested.folder, {item: {"ranks": [0, 1]} for item in range(N)}, source="model m 12345678")
        create_project(ledger, "quiz", task=replace(task, quiz=quiz), data=refs[id(PAIRS)])
        _used(ledger)
        with open_warehouse() as connection:
            sync(connection, ledger)
        create_adjudication(ledger, open_project(ledger, MAIN), LEA)
        add_member(ledger, f"{MAIN}-disputes", "cara", role="adjudicator")
    file, _ = sample.write(home / "sample", sample.SampleConfig(pairs=200))
    ingest(file, dataset="sample")
    assert call("run", ["clean", "--data", "sample", "--out", "split"]) == 0
    assert call("train", ["lexical", "--data", "split", "-o", str(home / "models" / "words")]) == 0
    server = Server(home)
    server.start()
    try:
        yield server.url, tokens
    finally:
        server.kill()


def _stored(home: Path, number: int, rows: list[dict[str, Any]]) -> str:
    file = home / f"rows-{number}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    version = ingest(file, dataset=f"rows-{number}").version
    assert version is not None
    return version.ref


def _used(ledger: Ledger) -> None:
    project = open_project(ledger, MAIN)
    desk = project.desk(ledger)
    last: dict[str, str] = {}
    for number in range(54):
        person = (ANNA, BEN, CARA)[number % 3]
        for hold in desk.open(person):
            if number in (10, 31):
                desk.submit(person, hold.id, Answer(verdict="bad_item", reason="broken text"))
                continue
            place = hold.order.index(0) if (number * 7) % 5 else hold.order.index(1)
            answer = Answer(better=place, strength=number % 3 + 1, rationale="it runs" if number % 4 == 0 else None)
            event = desk.submit(person, hold.id, answer, active_ms=4000 + 100 * number, wall_ms=9000)
            last[person.name] = str(event)
    write_review(ledger, MAIN, LEA, event=last["ben"], rater="ben", decision="commented", comment="See the guidelines.")
    desk.return_answer(LEA, last["anna"], comment="Read the second reply again, please.")
    desk.pause(LEA, "cara", paused=True, reason="a talk first")
    put_group(ledger, LEA, "night shift", ["anna", "ben"])
    put_rules(ledger, LEA, MAIN, [Rule(people=(), groups=("night shift",), contains="Question 7")])
    add_key(ledger, LEA, "nightly export")
    revise_task(ledger, project, LEA, replace(project.task, overlap=3), why="more votes")
    suggesting = open_project(ledger, "suggested").desk(ledger)
    for person in (ANNA, BEN):
        for _ in range(6):
            for hold in suggesting.open(person):
                suggesting.choose_first(person, hold.id, Answer(better=0, strength=1))
                suggesting.submit(person, hold.id, Answer(better=hold.order.index(0), strength=1))
