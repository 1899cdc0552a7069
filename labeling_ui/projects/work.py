"""What a project's people have done, as one frame that follows the ledger.

Only answers that no later event supersedes count; an undone answer is gone. Reading is incremental: a page that is
opened again reads what is new.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import polars as pl

from labeling_ui.desk.items import Items
from labeling_ui.desk.suggestions import likeness
from rmkit.ledger import Ledger
from rmkit.types import Event
from warehouse.events.payloads import KINDS

_COLUMNS: dict[str, Any] = {
    "event": pl.String,
    "supersedes": pl.String,
    "rater": pl.String,
    "item": pl.Int64,
    "slot": pl.String,
    "verdict": pl.String,  # ok | skip | bad_item
    "ranks": pl.List(pl.Int64),
    "strength": pl.Float64,
    # what is said of parts of the item: ratings by aspect and response, steps, a reaction, places of more than two
    "values": pl.List(pl.Struct({"question": pl.String, "place": pl.Int64, "value": pl.Float64})),
    "answer": pl.String,  # what was values, as text that is equal for equal answers
    "chose_first_shown": pl.Boolean,  # pairs without a tie
    "chose_longer": pl.Boolean,  # pairs without a tie and of unequal length
    "gold_right": pl.Boolean,  # known items only
    # items with a suggestion only: whether it was to be shown, whether it was seen, how far (0 to 1) the answer and the
    # choice before it say the same, and whether that choice agrees with a known answer
    "suggestion": pl.Struct(
        {
            "drawn": pl.Boolean,
            "seen": pl.Boolean,
            "alike": pl.Float64,
            "first_alike": pl.Float64,
            "first_right": pl.Boolean,
        }
    ),
    "active_s": pl.Float64,
    "wall_s": pl.Float64,
    "reason": pl.String,
    "time": pl.Datetime("us", "UTC"),
}
SCHEMA = pl.Schema(_COLUMNS)
RECENT = 500  # rows


class Work:
    """The answers of one project; safe to share among threads."""

    def __init__(self, ledger: Ledger, project: str, items: Items) -> None:
        self._ledger, self._project, self._items = ledger, project, items
        self._lock = threading.Lock()
        self._seq = 0
        self._settled = pl.DataFrame(schema=SCHEMA)
        self._recent: list[dict[str, Any]] = []

    def frame(self) -> pl.DataFrame:
        """The valid answers in SCHEMA, oldest first, skips and bad items included."""
        with self._lock:
            self._read()
            seen = self._settled.vstack(pl.DataFrame(self._recent, schema=SCHEMA))
        replaced = seen["supersedes"].drop_nulls().implode()
        undone = (pl.col("verdict") == "skip") & pl.col("supersedes").is_not_null()
        return seen.filter(~pl.col("event").is_in(replaced) & ~undone)

    def _read(self) -> None:
        """Take in what is new. Single rows stay apart: a chunk for each of them would cost far more."""
        for recorded in self._ledger.events(self._seq, kinds=KINDS):
            self._seq = recorded.seq
            extra = recorded.event.payload.get("extra") or {}
            if extra.get("project") == self._project:
                self._recent.append(_row(recorded.event, extra, self._items))
        if len(self._recent) > RECENT:
            self._settled = self._settled.vstack(pl.DataFrame(self._recent, schema=SCHEMA)).rechunk()
            self._recent = []


def counted(work: pl.DataFrame) -> pl.DataFrame:
    """The answers in items' own slots: known items and repeats are there to measure people, and are no votes."""
    return work.filter((pl.col("verdict") == "ok") & pl.col("slot").str.contains(r"^\d+$"))


def _row(event: Event, extra: Mapping[str, Any], items: Items) -> dict[str, object]:
    summary = event.payload
    ranks, shown = summary.get("ranks"), summary.get("shown_order")
    better = _better(ranks)
    lengths = [] if better is None else items.lengths(extra["item"])
    uneven = len(lengths) == 2 and lengths[0] != lengths[1]
    fields = ("ranks", "scores", "step_labels", "spans", "edit", "value")
    return {
        "event": str(event.id),
        "supersedes": str(event.supersedes) if event.supersedes else None,
        "rater": summary.get("rater") or event.actor,
        "item": extra["item"],
        "slot": extra["slot"],
        "verdict": summary.get("verdict", "ok"),
        "ranks": ranks,
        "strength": summary.get("strength"),
        "values": _values(summary),
        "answer": str([summary.get(name) for name in fields]),
        "chose_first_shown": None if better is None or not shown else shown[0] == better,
        "chose_longer": None if better is None or not uneven else lengths[better] == max(lengths),
        "gold_right": gold_right(items.gold(extra["item"]), summary),
        "suggestion": _suggestion(summary, extra, items.gold(extra["item"])),
        "active_s": _seconds(summary.get("active_ms")),
        "wall_s": _seconds(summary.get("wall_ms")),
        "reason": summary.get("rationale"),
        "time": event.time,
    }


def _suggestion(
    payload: Mapping[str, Any], extra: Mapping[str, Any], gold: Mapping[str, Any] | None
) -> dict[str, object] | None:
    if "suggested" not in extra:
        return None
    values, first = extra["suggested"]["values"], extra.get("first")
    return {
        "drawn": extra["drawn"],
        "seen": extra["seen"],
        "alike": likeness(values, payload),
        "first_alike": None if first is None else likeness(values, first),
        "first_right": None if first is None else gold_right(gold, first),
    }


def _values(payload: Mapping[str, Any]) -> list[dict[str, object]] | None:
    values: list[tuple[str, int, float | None]] = []
    values += [(one["aspect"], one["response"], one["value"]) for one in payload.get("scores") or ()]
    values += [("step", place, label) for place, label in enumerate(payload.get("step_labels") or ())]
    ranks = payload.get("ranks") or ()
    values += [("place", place, rank) for place, rank in enumerate(ranks) if len(ranks) != 2]
    if payload.get("value") is not None:
        values.append(("reaction", payload.get("response") or 0, payload["value"]))
    names = ("question", "place", "value")
    return [dict(zip(names, one, strict=True)) for one in values if one[2] is not None] or None


def gold_right(gold: Mapping[str, Any] | None, payload: Mapping[str, Any]) -> bool | None:
    """Whether a judgment agrees with the known answer; None where it says nothing that could be compared."""
    for field in ("ranks", "step_labels"):
        known, text = (gold or {}).get(field), payload.get(field)
        if known is not None and text is not None:
            return list(known) == list(text)
    return None


def _better(ranks: list[int | None] | None) -> int | None:
    """Which response of a pair was preferred, None for a tie or anything else."""
    if ranks is None or len(ranks) != 2 or None in ranks or ranks[0] == ranks[1]:
        return None
    return ranks.index(0)


def _seconds(milliseconds: Any) -> float | None:
    return None if milliseconds is None else milliseconds / 1000
