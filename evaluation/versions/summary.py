"""Every number about one model on a held-out split, and the paired comparison of two models; JSON-ready but for NaN."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.versions.held_out import HeldOut, Scored
from rmkit.data.pairs import Pair, column
from rmkit.data.reasons import counted
from rmkit.judge.tally import report_of
from rmkit.metrics import (
    Interval,
    calibration,
    length_bias,
    margin_summary,
    pair_accuracy,
    pair_credit,
    paired_difference,
)
from rmkit.metrics.accuracy import TiePolicy

EXCERPT = 160


def summarize(scored: Scored, held_out: HeldOut, *, ties: TiePolicy) -> dict[str, Any]:
    """All numbers of one model on the suite."""
    pairs, info = held_out.pairs, scored.model.info
    p, share, family = column(pairs, "p"), column(pairs, "share"), column(pairs, "family")
    first, second = held_out.lengths
    return {
        "name": info.name,
        "path": scored.path,
        "kind": info.kind,
        "scale": info.scale,
        "fingerprint": info.fingerprint,
        "accuracy": asdict(pair_accuracy(scored.margin, p, clusters=family, weight=share, ties=ties)),
        "calibration": asdict(calibration(scored.predicted, p, weight=share)),
        "margins": asdict(margin_summary(scored.margin, p)),
        "length_bias": asdict(
            length_bias(scored.margin, p, length_first=first, length_second=second, clusters=family, ties=ties)
        ),
        "by_subset": by_subset(scored.margin, held_out, ties=ties),
        "unscored": _unscored(scored),
        "mistakes": mistakes(scored.margin, held_out),
        "seconds": round(scored.seconds, 3),
        "judging": report_of(scored.model),
    }


def by_subset(margin: NDArray[np.float64], held_out: HeldOut, *, ties: TiePolicy) -> dict[str, Any]:
    """Accuracy within each subset, largest first."""
    names = np.array([pair.subset for pair in held_out.pairs])
    p, share, family = (column(held_out.pairs, name) for name in ("p", "share", "family"))
    result, counts = np.unique(names, return_counts=True)
    return {
        str(name): asdict(
            pair_accuracy(
                margin[names == name],
                p[names == name],
                clusters=family[names == name],
                weight=share[names == name],
                ties=ties,
            )
        )
        for name in result[np.argsort(-counts, kind="stable")]
    }


def compare(first: Scored, other: Scored, held_out: HeldOut, *, ties: TiePolicy) -> dict[str, Any]:
    """Accuracy of the first model minus the other's on the `n` pairs that both could score, of the `decided` ones."""
    p, share, family = (column(held_out.pairs, name) for name in ("p", "share", "family"))
    credits = [pair_credit(one.margin, p, ties=ties) for one in (first, other)]
    difference = paired_difference(credits[0], credits[1], family, weight=share)
    names = {"first": first.model.info.name, "second": other.model.info.name}
    counts = {"n": difference.n, "decided": int((p != 0.5).sum())}
    return names | {"difference": difference.value, **counts, "interval": _interval(difference.interval)}


def _interval(interval: Interval | None) -> dict[str, Any] | None:
    return None if interval is None else asdict(interval)


def mistakes(margin: NDArray[np.float64], held_out: HeldOut, *, most: int = 10) -> list[dict[str, Any]]:
    """The decided pairs that the model got most confidently wrong: id, margin against the label, short excerpts."""
    signed = margin * np.sign(column(held_out.pairs, "p") - 0.5)
    wrong = [index for index in np.argsort(signed, kind="stable") if signed[index] < 0][:most]
    return [_mistake(held_out.pairs[index], float(signed[index])) for index in wrong]


def _mistake(pair: Pair, signed: float) -> dict[str, Any]:
    first, second = (completion.text for completion in pair.candidates.completions)
    better, worse = (first, second) if pair.p > 0.5 else (second, first)
    prompt = pair.candidates.prompt[-1].content if pair.candidates.prompt else ""
    texts = {"prompt": prompt, "better": better, "worse": worse}
    return {"id": pair.id, "margin": signed, "p": pair.p} | {key: _excerpt(text) for key, text in texts.items()}


def _excerpt(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= EXCERPT else flat[: EXCERPT - 3] + "..."


def _unscored(scored: Scored) -> dict[str, int]:
    """Responses without a score by reason."""
    return dict(counted(score.unscored for answers in scored.scores.values() for score in answers if score.unscored))
