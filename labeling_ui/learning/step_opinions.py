"""`rmkit label opinions`: a process model scores the steps of a project's items, for people to see after their answers.

Items that this version of the model has scored already are not asked again, so an interrupted run goes on, and items
that came later are taken in by the same command.
"""

from __future__ import annotations

import time
from pathlib import Path

from labeling_ui.desk.items import Item, Items
from labeling_ui.desk.opinions import Opinions, write_opinions
from labeling_ui.projects.project import Project, note_change
from rmkit.cli import display
from rmkit.errors import UsageError
from rmkit.ledger import Ledger
from rmkit.models import load_model
from rmkit.types import Candidates, Completion, Event, Score

KIND = "label_opinions"
WINDOW = 64
STORE_EVERY_S = 30.0


def ask_model(ledger: Ledger, project: Project, name: str) -> dict[str, object]:
    """Score every item's steps with a process model; what was done, also kept in the ledger.

    Raises UsageError where the project's task is not about steps, or the model scores whole answers only.
    """
    if project.task.kind != "steps":
        raise UsageError(f"opinions are of steps, and {project.name} is a {project.task.kind} project")
    items, model = Items(project.folder), load_model(name)
    stored = Opinions(project.folder)
    rows = stored.rows() if stored.fingerprint == model.info.fingerprint else []
    known = {row["item"] for row in rows}
    left = [number for number in range(len(items)) if number not in known]
    # only the name: a path of this machine is nothing for annotators
    facts = {"model": Path(name).name, "fingerprint": model.info.fingerprint, "scale": str(model.info.scale)}
    stored_at = time.monotonic()
    with display.progress("scoring steps", len(left)) as advance:
        for start in range(0, len(left), WINDOW):
            batch = [items[number] for number in left[start : start + WINDOW]]
            scores = [score for (score,) in model.score([_candidates(item) for item in batch])]
            if any(score.unscored is None and not score.steps for score in scores):
                raise UsageError(f"{name} scores whole answers and no steps; name a process model")
            rows += map(_row, batch, scores)
            if time.monotonic() - stored_at > STORE_EVERY_S:
                write_opinions(project.folder, rows, facts)
                stored_at = time.monotonic()
            advance(len(batch))
    write_opinions(project.folder, rows, facts)
    summary: dict[str, object] = {
        "project": project.name,
        **facts,
        "items": len(rows),
        "asked": len(left),
        "unscored": sum(row["unscored"] is not None for row in rows),
    }
    ledger.append(Event(kind=KIND, actor="rmkit label", payload=summary))
    note_change(ledger, project.name)
    return summary


def _candidates(item: Item) -> Candidates:
    return Candidates(item.prompt, (Completion(item.responses[0], step_ends=item.step_ends),))


def _row(item: Item, score: Score) -> dict[str, object]:
    unscored = score.unscored
    if unscored is None and len(score.steps) != len(item.step_ends):
        unscored = f"it scored {len(score.steps)} of {len(item.step_ends)} steps"
    return {"item": item.number, "steps": None if unscored else list(score.steps), "unscored": unscored}
