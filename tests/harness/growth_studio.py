"""The studio's tables and what it makes of them, for tests.harness.test_growth."""

from __future__ import annotations

import functools
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from rmkit.ids import assistant_message, user_message
from rmkit.ledger import Record
from rmkit.types import Event

Call = Callable[[], Any]


def desk_of(n_items: int, *, overlap: int = 2, **options: Any) -> Any:
    """A desk over so many pairs, half of them with a known answer where gold is asked for, in a folder of its own."""
    from labeling_ui.desk.desk import Desk
    from labeling_ui.desk.items import Items, add_part
    from labeling_ui.projects.definition import TaskDefinition
    from rmkit.ledger import open_ledger

    settings = {"name": "t", "kind": "pairwise", "title": "T", "question": "Q?", "gold_share": 0.0, "repeat_share": 0.0}
    task = TaskDefinition(overlap=overlap, **{**settings, **options})
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    known = json.dumps({"ranks": [0, 1]}) if task.gold_share else None
    blank = dict.fromkeys(("step_ends", "rubric", "priority", "reason", "evidence"))
    rows = [
        {
            "unit": f"{at:032x}",
            "kind": "pair",
            "prompt": user_message(f"question {at}"),
            "responses": [assistant_message("yes"), assistant_message(f"no {at}")],
            "gold": known if at % 2 else None,
        }
        | blank
        for at in range(n_items)
    ]
    add_part(folder / "items", rows)
    return Desk(open_ledger(folder / "ledger.sqlite"), "p", task=task, items=Items(folder / "items"))


def answer(desk: Any, name: str, n: int) -> None:
    from labeling_ui.desk.answers import Answer
    from labeling_ui.projects.people import Person

    person = Person(name, "annotator")
    for _ in range(n):
        (hold,) = desk.open(person)
        desk.submit(person, hold.id, Answer(better=0, strength=1), active_ms=2000)


def desk_work(size: int) -> Call:
    """One person answers so many items, each of which waits for a second person."""
    desk = desk_of(size)
    answer(desk, "ben", 3)
    return lambda: answer(desk, "anna", size - 3)


def desk_known_items(size: int) -> Call:
    """One person answers so many items, among them many known and repeated ones."""
    desk = desk_of(3 * size, overlap=1, gold_share=0.3, repeat_share=0.2)
    return lambda: answer(desk, "anna", size)


def _events(desk: Any, n: int, *, people: int, per_item: int) -> None:
    """So many answers as the desk writes them, with the holds they close, in one go."""
    draw = np.random.default_rng(7)
    events, holds = [], []
    for at in range(n):
        item, slot, rater = at // per_item, at % per_item, f"person-{at % people}"
        extra = {"project": "p", "task": "t", "item": item, "slot": str(slot)}
        first = int(draw.integers(0, 2))
        payload = {"unit": f"{item:032x}", "ranks": [first, 1 - first], "strength": 1.0, "extra": extra}
        events.append(Event(kind="judgment", actor=rater, payload=payload | {"shown_order": [0, 1], "active_ms": 900}))
        hold = {"rater": rater, "order": [0, 1], "opened": float(at), "until": at + 900.0, "propensity": None}
        holds.append((f"p/{item:07d}/{slot}", hold | {"revision": 0, "event": str(events[-1].id)}))
    desk._ledger.append_many(events)
    desk._ledger.put_many("assignment", [Record(key, hold, 1) for key, hold in holds])


def opening(size: int) -> Call:
    """A studio starts where so many answers have been given."""
    from labeling_ui.desk.desk import Desk

    desk = desk_of(size // 2)
    _events(desk, size, people=7, per_item=2)
    return lambda: Desk(desk._ledger, "p", task=desk.task, items=desk.items).progress()


def work_frame(size: int) -> Call:
    """The frame of so many answers, opened again after every hundredth part of them."""
    from labeling_ui.projects.work import Work

    desk = desk_of(size // 2)
    _events(desk, size, people=7, per_item=2)

    def call() -> None:
        work = Work(desk._ledger, "p", desk.items)
        for _ in range(100):
            work.frame()

    return call


def quality(axis: str, size: int) -> Call:
    """What the project page says about answers: of many items, of many people, of many people on few items."""
    from labeling_ui.projects.work import Work
    from labeling_ui.quality import agreement, people_reports

    n = {"answers": size, "people": 20_000, "overlap": 20 * size}[axis]
    people = {"answers": 7, "people": size, "overlap": size}[axis]
    per_item = {"answers": 2, "people": 2, "overlap": size}[axis]
    desk = desk_of(n // per_item)
    _events(desk, n, people=people, per_item=per_item)
    frame = Work(desk._ledger, "p", desk.items).frame()
    return lambda: (agreement(frame), people_reports(frame))


def queued(size: int) -> Call:
    """So many findings are taken in as items, once more after they have been."""
    from labeling_ui.desk.items import add_part

    rows = [
        {"unit": f"{at:032x}", "kind": "pair", "prompt": user_message(f"q {at}"), "responses": ["a", "b"]}
        for at in range(size)
    ]
    folder = Path(tempfile.mkdtemp())
    return lambda: (add_part(folder, rows), add_part(folder, rows))


def strategy(name: str, size: int) -> Call:
    """Weights of so many items by a strategy of `rmkit label prioritize`."""
    from labeling_ui.learning.rank_items import BATCH
    from labeling_ui.learning.strategies import Pool, scores, weights

    draw = np.random.default_rng(8)
    pool = Pool(
        p=draw.random((3, size)),
        features=draw.normal(size=(size, 32)),
        labeled=np.zeros(size, bool),
        label=draw.random(size),
    )
    return lambda: weights(scores(name, pool, batch=min(size // 10 + 1, BATCH)))  # type: ignore[arg-type]


def _home(size: int) -> Any:
    """A home with a dataset of so many pairs, the project `p` on it and two answers to each item; (ledger, project)."""
    from data_pipelines.ingest.command import ingest
    from labeling_ui.projects.definition import read_definition
    from labeling_ui.projects.project import create_project
    from rmkit.ledger import open_ledger

    folder = Path(tempfile.mkdtemp())
    os.environ["RMKIT_HOME"] = str(folder / "home")
    lines = [{"prompt": f"question {at}", "chosen": f"yes {at}", "rejected": f"no {at}"} for at in range(size)]
    (folder / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    ingest(folder / "p.jsonl", dataset="toy")
    ledger = open_ledger()
    return ledger, lambda name: create_project(ledger, name, task=read_definition("pairwise"), data="toy@v1")


def project(size: int) -> Call:
    """A project on so many rows is made."""
    _, create = _home(size)
    return lambda: create("p")


def labels(size: int) -> Call:
    """The answers to so many items are merged into the warehouse and become a version."""
    from labeling_ui.projects.labels import commit_labels
    from labeling_ui.projects.people import Person

    ledger, create = _home(size)
    made = create("p")
    desk = made.desk(ledger)
    units = desk.items.column("unit").to_pylist()
    events = [
        Event(
            kind="judgment",
            actor=f"person-{slot}",
            payload={
                "unit": unit,
                "ranks": [slot, 1 - slot] if at % 3 else [0, 1],
                "extra": {"project": "p", "item": at, "slot": str(slot)},
            },
        )
        for at, unit in enumerate(units)
        for slot in (0, 1)
    ]
    ledger.append_many(events)
    return lambda: commit_labels(ledger, made, Person("lea", "lead"))


def explorer(size: int) -> Call:
    """A page of the data explorer, rows that hold a text, of so many."""
    from labeling_ui.web.pages.explorer import QUERY
    from warehouse.store import open_warehouse
    from warehouse.versions.versions import members, resolve

    _home(size)
    inputs = {"split": None, "kind": "pair", "text": "question 1", "sureness": None, "limit": 50, "offset": 50}

    def call() -> pl.DataFrame:
        with open_warehouse(read_only=True) as connection:
            rows = members(connection, resolve(connection, "toy"))
            return connection.sql(QUERY.format(members=rows), params=inputs).pl()

    return call


CASES: dict[str, tuple[int, Callable[[int], Call]]] = {
    "studio desk": (1_500, desk_work),
    "studio desk with known items": (800, desk_known_items),
    "studio opening": (20_000, opening),
    "studio work": (20_000, work_frame),
    "studio quality by answers": (20_000, functools.partial(quality, "answers")),
    "studio quality by people": (100, functools.partial(quality, "people")),
    "studio quality by overlap": (300, functools.partial(quality, "overlap")),
    "studio queued items": (20_000, queued),
    **{f"studio strategy {name}": (40_000, functools.partial(strategy, name)) for name in ("disagreement", "coverage")},
    "studio project": (4_000, project),
    "studio labels": (4_000, labels),
    "studio explorer": (4_000, explorer),
}
