"""The audit of a peer review: what each model thought of each pair after each epoch, and what was selected.

Epochs count from 1 in what people read. `margin` is measured after the epoch in eval mode; `kept`, `rank` and
`selected_by` say what the epoch trained on, decided by the margins after the epoch before.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rmkit.reliability.label_weights import Flags
from rmkit.reliability.peer_review import MODELS, NO_DIVERSITY, Selection, jaccard
from rmkit.reliability.separation import auc, kept_precision

log = logging.getLogger(__name__)

Pair2 = tuple[float, float]


@dataclass(frozen=True, slots=True)
class EpochFacts:
    """One epoch. Pairs of numbers are for A and B; `auc` and `kept_precision` are None where the truth is unknown."""

    epoch: int
    keep_ratio: float
    kept: tuple[int, int]
    mean_margin: Pair2
    mean_kept_margin: Pair2
    jaccard: float
    nan_margins: int
    auc: Pair2 | None = None
    kept_precision: Pair2 | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReviewAudit:
    """`margin` [E, 2, n], `kept` [E, 2, n], `rank` [E, 2, n] (-1: not reviewed) and who selected, per epoch."""

    method: str
    ids: tuple[str, ...]
    margin: NDArray[np.float32]
    kept: Flags
    rank: NDArray[np.int64]
    selected_by: tuple[tuple[str, str], ...]
    epochs: tuple[EpochFacts, ...]

    @property
    def times_kept(self) -> NDArray[np.int64]:
        """[E, 2, n] in how many epochs up to this one the pair was kept."""
        return np.cumsum(self.kept, axis=0)

    @property
    def loss(self) -> NDArray[np.float64]:
        """[E, 2, n] Bradley-Terry loss of the margins."""
        return np.logaddexp(0, -self.margin.astype(np.float64))

    def table(self) -> pa.Table:
        """One row per epoch, model and pair, in this order, with the columns that the warehouse stores."""
        e, k, n = self.margin.shape
        by = [[name] * n for names in self.selected_by for name in names]
        return pa.table(
            {
                "id": pa.array(list(self.ids) * (e * k)),
                "method": pa.array([self.method] * (e * k * n)),
                "epoch": pa.array(np.repeat(np.arange(1, e + 1), k * n), pa.int32()),
                "model": pa.array([model for _ in range(e) for model in MODELS for _ in range(n)]),
                "margin": pa.array(self.margin.ravel().astype(np.float64)),
                "loss": pa.array(self.loss.ravel()),
                "kept": pa.array(self.kept.ravel()),
                "selected_by": pa.array([name for part in by for name in part]),
                "rank": pa.array(self.rank.ravel(), pa.int64(), mask=self.rank.ravel() < 0),
                "times_kept": pa.array(self.times_kept.ravel(), pa.int32()),
            }
        )

    def facts(self) -> list[dict[str, object]]:
        """The epochs, JSON-ready."""
        return [asdict(epoch) for epoch in self.epochs]


class AuditLog:
    """Collects epochs while a review runs. `truth` [n] says which labels are right, where that is known."""

    def __init__(self, method: str, ids: Sequence[str], *, truth: Flags | None = None) -> None:
        self.method, self.ids, self.truth = method, tuple(ids), truth
        self._margin: list[NDArray[np.float32]] = []
        self._selection: list[Selection] = []
        self._facts: list[EpochFacts] = []

    def __len__(self) -> int:
        return len(self._facts)

    @property
    def last_margin(self) -> NDArray[np.float32]:
        """[2, n] margins after the newest epoch."""
        return self._margin[-1]

    @property
    def newest(self) -> tuple[NDArray[np.float32], Selection, float]:
        """Margins, selection and keep ratio of the newest epoch: what `add` took."""
        return self._margin[-1], self._selection[-1], self._facts[-1].keep_ratio

    def add(self, margin_2n: NDArray[np.float32], selection: Selection, *, keep_ratio: float) -> EpochFacts:
        """Record a finished epoch: its margins, and what it was trained on. Warnings are logged and kept."""
        facts = _facts(len(self) + 1, margin_2n, selection, keep_ratio, self.truth)
        for warning in facts.warnings:
            log.warning("epoch %d: %s", facts.epoch, warning)
        self._margin.append(margin_2n)
        self._selection.append(selection)
        self._facts.append(facts)
        return facts

    def audit(self) -> ReviewAudit:
        """Everything recorded so far."""
        return ReviewAudit(
            self.method,
            self.ids,
            np.stack(self._margin),
            np.stack([selection.kept for selection in self._selection]),
            np.stack([selection.rank for selection in self._selection]),
            tuple(selection.selected_by for selection in self._selection),
            tuple(self._facts),
        )


def _facts(
    epoch: int, margin: NDArray[np.float32], selection: Selection, keep_ratio: float, truth: Flags | None
) -> EpochFacts:
    selected = selection.kept
    kept_margin = _each(
        np.nanmean(one[mask]) if mask.any() else np.nan for one, mask in zip(margin, selected, strict=True)
    )
    overlap = jaccard(selected)
    selecting = selection.selected_by[0] != "all" and selection.selected_by[0] != "mean"
    warnings = [
        f"the mean margin of what model {model} kept is {value:.3f}, not above 0: it learns against its labels"
        for model, value in zip(MODELS, kept_margin, strict=True)
        if value <= 0
    ]
    if selecting and keep_ratio < 1 and overlap > NO_DIVERSITY:
        warnings.append(f"the two models keep the same pairs (Jaccard {overlap:.3f}): one of them would do")
    return EpochFacts(
        epoch=epoch,
        keep_ratio=keep_ratio,
        kept=(int(selected[0].sum()), int(selected[1].sum())),
        mean_margin=_each(np.nanmean(one) for one in margin),
        mean_kept_margin=kept_margin,
        jaccard=overlap,
        nan_margins=int(np.isnan(margin).any(axis=0).sum()),
        auc=None if truth is None else _each(auc(one, truth) for one in margin),
        kept_precision=None if truth is None else _each(kept_precision(one, truth) for one in selected),
        warnings=tuple(warnings),
    )


def _each(values: Any) -> Pair2:
    first, second = values
    return float(first), float(second)
