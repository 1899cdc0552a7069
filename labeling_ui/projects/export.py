"""A project's work as files: every answer as it was given, or its labels in the forms of `rmkit export`, zipped."""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from labeling_ui.desk.items import Items
from labeling_ui.projects.people import Person
from labeling_ui.projects.reviews import reviews
from rmkit.ids import message_mapping
from rmkit.ledger import Ledger
from rmkit.types import Conversation
from warehouse.out.export import export_version
from warehouse.out.forms import Form
from warehouse.store import open_warehouse
from warehouse.versions.versions import get, resolve


def answer_rows(ledger: Ledger, project: str, items: Items, work: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """One mapping an answer of `Work.frame`, oldest first, with its texts and what a lead said of it; JSON-ready."""
    reviewed = reviews(ledger, project)
    for row in work.to_dicts():
        item = items[row["item"]]
        review = reviewed.get(row["event"])
        yield {
            **{name: value for name, value in row.items() if name not in ("answer", "supersedes")},
            "time": row["time"].isoformat(),
            "unit": item.unit,
            "prompt": _turns(item.prompt),
            "responses": [_turns(response) for response in item.responses],
            "review": None if review is None else {"decision": review.decision, "comment": review.comment},
        }


def answers_jsonl(ledger: Ledger, project: str, items: Items, work: pl.DataFrame) -> bytes:
    """`answer_rows`, one JSON object a line."""
    rows = answer_rows(ledger, project, items, work)
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def export_zip(lead: Person, ref: str, *, form: Form) -> tuple[str, bytes]:
    """A dataset version in a form of `rmkit export`, as (name, zip file). Raises what `export_version` raises."""
    lead.require("lead", "take labels out")
    with tempfile.TemporaryDirectory(prefix="rmkit-export-") as scratch, open_warehouse(read_only=True) as connection:
        version_id = resolve(connection, ref)
        name = f"{get(connection, version_id).ref.replace('@', '-')}-{form}"
        folder = export_version(connection, version_id, Path(scratch) / name, form=form)
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(folder.iterdir()):
                archive.write(file, f"{name}/{file.name}")
    return f"{name}.zip", packed.getvalue()


def _turns(conversation: Conversation) -> list[dict[str, object]]:
    return [message_mapping(turn) for turn in conversation]
