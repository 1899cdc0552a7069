"""A threshold for each clause of a rubric, from labels of people (SafeWatch, B31): judges are not calibrated alike.

    threshold of a clause      the highest F1 on the prompt families of one half
    AUROC, precision, recall   on the other half, by that threshold and by one half for comparison
    a clause without labels    the pooled threshold of all labeled clauses; `unseen` says for each labeled clause what
                               the threshold of all others would have done on it

A probability p with threshold t enters sums as `centered`: 0 stays 0, t becomes 1/2, 1 stays 1, so that gates and
weights mean the same for every clause.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from rmkit.atomic import draft_file
from rmkit.config import read_object
from rmkit.errors import ConfigError, DataError
from rmkit.ids import content_hash
from rmkit.metrics.steps import auc
from rmkit.metrics.thresholds import OperatingPoint, operating_point, threshold_of_f1


class Labeled(NamedTuple):
    """One response under one clause: the judge's probability (NaN unscored), what people say, the prompt family."""

    p: float
    met: bool
    family: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClauseCalibration:
    """`point`, `at_half` and `unseen` are of the held-out half; `threshold` is the pooled one where `fitted` is False
    (one class only among the labels of the first half). `auroc` is NaN where a class is absent."""

    criterion: str
    threshold: float
    fitted: bool
    auroc: float
    point: OperatingPoint
    at_half: OperatingPoint
    unseen: OperatingPoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """`pooled` is the threshold of clauses that nobody labeled."""

    pooled: float
    clauses: tuple[ClauseCalibration, ...]

    def thresholds(self) -> dict[str, float]:
        """By criterion."""
        return {one.criterion: one.threshold for one in self.clauses}


def centered(p: float, threshold: float) -> float:
    """p in [0, 1] with the threshold moved to one half, linear on both sides."""
    if not 0 < threshold < 1:
        raise DataError(f"the threshold of a clause lies between 0 and 1, got {threshold}")
    return 0.5 * p / threshold if p < threshold else 0.5 + 0.5 * (p - threshold) / (1 - threshold)


def calibrated(labeled: Mapping[str, Sequence[Labeled]], *, seed: int = 0) -> Calibration:
    """Of the labeled responses of each clause. Raises DataError where no threshold can be fitted at all."""
    fit = {name: [one for one in rows if _fits(one.family, seed)] for name, rows in labeled.items()}
    held = {name: [one for one in rows if not _fits(one.family, seed)] for name, rows in labeled.items()}
    pooled = _threshold([one for rows in fit.values() for one in rows])
    if pooled is None:
        raise DataError("the labels of the clauses are all alike; a threshold needs responses that meet one and do not")
    clauses = []
    for name in labeled:
        own, rows = _threshold(fit[name]), held[name]
        others = _threshold([one for other, part in fit.items() if other != name for one in part])
        p, met = [one.p for one in rows], [one.met for one in rows]
        threshold = pooled if own is None else own
        known = [one for one in rows if not math.isnan(one.p)]
        clauses.append(
            ClauseCalibration(
                criterion=name,
                threshold=threshold,
                fitted=own is not None,
                auroc=auc([one.p for one in known], [one.met for one in known]),
                point=operating_point(p, met, threshold=threshold),
                at_half=operating_point(p, met, threshold=0.5),
                unseen=operating_point(p, met, threshold=0.5 if others is None else others),
            )
        )
    return Calibration(pooled=pooled, clauses=tuple(clauses))


def _fits(family: int, seed: int) -> bool:
    """Whether a prompt family is of the half that thresholds are fitted on."""
    return int(content_hash(f"clauses {seed} {family}")[:8], 16) % 2 == 0


def _threshold(rows: Sequence[Labeled]) -> float | None:
    known = [one for one in rows if not math.isnan(one.p)]
    threshold = threshold_of_f1([one.p for one in known], [one.met for one in known])
    return None if threshold is None else min(max(threshold, 1e-6), 1 - 1e-6)


def write_thresholds(path: Path, calibration: Calibration) -> None:
    """A JSON file that [rubric] thresholds takes."""
    with draft_file(path) as draft:
        draft.write_text(json.dumps(asdict(calibration), ensure_ascii=False, indent=1) + "\n")


def read_thresholds(path: Path) -> tuple[dict[str, float], float]:
    """Thresholds by criterion, and the one of all other criteria. Raises ConfigError for anything else."""
    stored = read_object(path, raises=ConfigError, hint="make it with rmkit rubrics calibrate", keys={"clauses": list})
    try:
        thresholds = {str(one["criterion"]): float(one["threshold"]) for one in stored["clauses"]}
        pooled = float(stored["pooled"])
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: no thresholds of clauses ({error}); make it with rmkit rubrics calibrate") from None
    if bad := [one for one in (*thresholds.values(), pooled) if not 0 < one < 1]:
        raise ConfigError(f"{path}: thresholds lie between 0 and 1, got {bad[0]}")
    return thresholds, pooled
