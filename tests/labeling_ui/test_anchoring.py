"""What suggestions do to answers, against numbers by hand."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from labeling_ui.anchoring import anchoring
from labeling_ui.projects.work import SCHEMA


def _work(rows: list[dict[str, Any]]) -> pl.DataFrame:
    blank = dict.fromkeys(SCHEMA)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    return pl.DataFrame(
        [
            blank | {"event": str(at), "verdict": "ok", "slot": "0", "item": at, "time": start + timedelta(at)} | row
            for at, row in enumerate(rows)
        ],
        schema=SCHEMA,
    )


def _row(alike: float, *, drawn: bool = True, first: float | None = None, **more: Any) -> dict[str, Any]:
    known = {"first_right": more.pop("first_right", None)}
    seen = drawn and first is not None and first < 1
    return {"suggestion": {"drawn": drawn, "seen": seen, "alike": alike, "first_alike": first, **known}, **more}


def test_groups_moves_and_known_items_are_counted() -> None:
    rows = [
        _row(1.0, first=0.0, first_right=True, gold_right=False),
        _row(1.0, first=1.0),
        _row(0.0, first=0.0, first_right=True, gold_right=True),
        _row(1.0, first=0.0),
        _row(1.0, drawn=False),
        _row(0.0, drawn=False),
        _row(0.0, drawn=False),
        _row(0.0, drawn=False),
        {"suggestion": None},
        _row(1.0, verdict="skip"),
    ]
    effect = anchoring(_work(rows))
    assert effect is not None
    assert (effect.shown.right, effect.shown.n, effect.hidden.right, effect.hidden.n) == (3, 4, 1, 4)
    assert effect.effect == pytest.approx(3 / 4 - 1 / 4)
    assert (effect.moved.right, effect.moved.n) == (2, 3)
    assert (effect.right_first.right, effect.right.right, effect.right.n) == (2, 1, 2)
    assert anchoring(_work([{"suggestion": None}])) is None
    alone = anchoring(_work([_row(1.0), _row(0.5)]))
    assert alone is not None
    assert math.isnan(alone.effect)
    assert math.isnan(alone.interval[0])


def test_the_interval_covers_the_true_effect_about_as_often_as_it_says() -> None:
    """P(follow) is 0.8 where it is seen and 0.5 where not: an effect of 0.3."""
    rng = np.random.default_rng(5)
    covered = 0
    for run in range(60):
        drawn = rng.random(120) < 0.7
        alike = np.where(drawn, rng.random(120) < 0.8, rng.random(120) < 0.5)
        rows = [_row(float(one), drawn=bool(is_drawn)) for one, is_drawn in zip(alike, drawn, strict=True)]
        effect = anchoring(_work(rows), seed=run)
        assert effect is not None
        covered += effect.interval[0] <= 0.3 <= effect.interval[1]
    assert covered >= 52  # of 60 at 95%: fewer in one of 500 runs
