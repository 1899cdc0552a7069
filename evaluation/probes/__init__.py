"""Probes: why a model is right or wrong. Each is a pure function over answers that are already there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from evaluation.probes.best_of_n import best_of_n_probe
from evaluation.probes.comparisons import Compared, comparisons
from evaluation.probes.length import length_probe
from evaluation.probes.position import position_probe
from evaluation.probes.style import style_probe
from evaluation.reports.json_ready import without_nan
from evaluation.suites.items import Answer, Item
from evaluation.suites.suite import Suite
from rmkit.metrics import calibration, margin_summary
from rmkit.metrics.calibration import sigmoid
from rmkit.types import LOGIT_SCALES, ModelInfo

EXCERPT = 400


def probes(suite: Suite, items: Sequence[Item], answers: Mapping[str, Answer], info: ModelInfo) -> dict[str, object]:
    """Every probe that applies, JSON-ready (null for NaN)."""
    compared = comparisons(suite, items, answers)
    inputs = [answers[item.id] for item in items if item.id in answers]
    margins = np.array([one.margin for one in compared])
    result = {
        "length": length_probe(compared),
        "style": style_probe(compared),
        "calibration": _calibration(compared, info, answers) if compared else None,
        "position": position_probe(inputs),
        "best_of_n": best_of_n_probe([item for item in items if item.id in answers], inputs),
        "margins": asdict(margin_summary(margins, np.ones(len(margins)))) if compared else None,
        "mistakes": mistakes(compared),
    }
    by_key: dict[str, Any] = without_nan({name: value for name, value in result.items() if value is not None})
    return by_key


def _calibration(
    compared: Sequence[Compared], info: ModelInfo, answers: Mapping[str, Answer]
) -> dict[str, object] | None:
    """Predictions against labels. A dataset's pairs are looked at as their row has them, by content hash; all others
    from both sides, since the benchmark names the better reply first. Stored results may hold verdicts for some items
    and scores for others."""
    judged = np.array([bool(answers[one.item.id].p) for one in compared], dtype=bool)
    margin = np.array([one.margin for one in compared])
    linked = sigmoid(margin) if info.scale in LOGIT_SCALES else [answers[one.item.id].predicted for one in compared]
    q = np.where(judged, margin + 0.5, linked)  # that the better reply is the better one
    if not judged.any() and np.isnan(q).all() and info.scale not in LOGIT_SCALES:
        return None
    p, weight = (np.array([getattr(one.item, name) for one in compared]) for name in ("p", "share"))
    forward = np.array([one.turned is not True for one in compared], dtype=bool)
    backward = np.array([one.turned is not False for one in compared], dtype=bool)
    sides = calibration(
        np.concatenate([q[forward], 1 - q[backward]]),
        np.concatenate([p[forward], 1 - p[backward]]),
        weight=np.concatenate([weight[forward], weight[backward]]),
    )
    return asdict(sides) | {"n": int((~np.isnan(q)).sum())}


def mistakes(compared: Sequence[Compared], *, most: int = 10) -> list[dict[str, object]]:
    """The comparisons that the model got most confidently wrong, at most one an item, with excerpts."""
    worst: dict[str, Compared] = {}
    for one in compared:
        if one.margin < 0 and one.texts is not None:
            held = worst.get(one.item.id)
            worst[one.item.id] = one if held is None or one.margin < held.margin else held
    return [_mistake(one) for one in sorted(worst.values(), key=lambda one: one.margin)[:most]]


def _mistake(one: Compared) -> dict[str, object]:
    assert one.texts is not None
    assert one.item.candidates is not None
    prompt = one.item.candidates.prompt[-1].content if one.item.candidates.prompt else ""
    texts = {"prompt": prompt, "better": one.texts[0], "worse": one.texts[1]}
    return {"item": one.item.id, "margin": one.margin} | {name: _excerpt(text) for name, text in texts.items()}


def _excerpt(text: str) -> str:
    return text if len(text) <= EXCERPT else text[: EXCERPT - 3] + "..."
