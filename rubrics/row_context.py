"""What an item is judged by, where the item itself says so: its rubric, its reference answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rmkit.judge import Context
from rmkit.types import Candidates
from rubrics.criteria import parse_rubric
from rubrics.validate import rubric_text

REFERENCES = ("reference", "reference_answer")  # in the meta of a row that has none of its own


def context_of(row: Mapping[str, Any], *, rubric: str = "") -> Context:
    """The context of a row of EXAMPLE_SCHEMA. A judge's own `rubric` comes before the row's.

    Raises DataError for a rubric that cannot be read.
    """
    own = rubric_text(parse_rubric(json.loads(row["rubric"]))) if row["rubric"] and not rubric else ""
    meta = json.loads(row["meta"] or "{}")
    texts = [row.get("reference"), *(meta.get(name) for name in REFERENCES)]
    reference = next((text for text in texts if isinstance(text, str) and text.strip()), "")
    return Context(rubric=rubric or own, reference=reference)


def item_context(item: Candidates, *, rubric: str = "") -> Context:
    """The context of a model's input. A judge's own `rubric` comes before the item's.

    Raises DataError for a rubric that cannot be read.
    """
    own = rubric_text(parse_rubric(list(item.rubric))) if item.rubric and not rubric else ""
    return Context(rubric=rubric or own, reference=item.reference or "")
