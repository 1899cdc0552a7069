"""A project of what people disagree on, for adjudicators to decide.

Each person counts once for an item, with their answer in the item's own slot: repeats and known items are there to
measure people and are no votes.
"""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pyarrow as pa

from labeling_ui.desk.items import Items
from labeling_ui.projects.definition import TaskDefinition, read_definition
from labeling_ui.projects.people import Person
from labeling_ui.projects.project import Project, store_project
from labeling_ui.projects.work import Work, counted
from rmkit.errors import DataError, UsageError
from rmkit.ledger import Ledger


def create_adjudication(
    ledger: Ledger, project: Project, lead: Person, *, name: str | None = None, task: TaskDefinition | None = None
) -> Project:
    """A project (default NAME-disputes) of the pairs of `project` that people have judged differently.

    Raises UsageError where the project has no pairs, DataError where nobody disagrees.
    """
    lead.require("lead", "create a project")
    if project.task.kind != "pairwise":
        raise UsageError(f"{project.name} is a {project.task.kind} project; adjudication decides between two responses")
    items = Items(project.folder)
    numbers = disputed_items(Work(ledger, project.name, items).frame())
    if not numbers:
        raise DataError(f"nobody disagrees in {project.name} yet: no item has two different answers")
    table = items.table().take(pa.array(numbers))
    answers = "people disagree" if len(numbers) == 1 else f"one of {len(numbers)} on which people disagree"
    table = table.set_column(
        table.schema.get_field_index("reason"), "reason", pa.array([answers] * len(numbers), pa.string())
    )
    decided = task or read_definition("adjudication")
    return store_project(
        ledger,
        replace(
            project,
            name=name or f"{project.name}-disputes",
            task=decided,
            gold=None,
            skipped={},
            created_by=lead.name,
            source=project.name,
        ),
        table,
    )


def disputed_items(work: pl.DataFrame) -> list[int]:
    """Numbers of the items with two or more different answers, ascending; `work` as in `Work.frame`."""
    counts = counted(work).group_by("item").agg(pl.col("answer").n_unique())
    return counts.filter(pl.col("answer") > 1)["item"].sort().to_list()
