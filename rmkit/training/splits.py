"""The rows of an export that training and validation read."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmkit.data.example import Example
from rmkit.data.export_folder import SPLIT_NAMES, examples_of
from rmkit.data.reasons import check_enough
from rmkit.errors import DataError
from rmkit.training.objectives.objective import Objective

if TYPE_CHECKING:
    from rmkit.training.rows import TrainingRow

MIN_TRAIN, MIN_VALIDATION = 20, 5


def read_splits(
    folder: Path, chat: Any, objective: Objective, head: Any = None, *, max_eval_samples: int | None = None
) -> tuple[dict[str, Sequence[TrainingRow]], dict[str, dict[str, int]]]:
    """Usable rows of the train and validation splits, and how many were skipped by split and reason. Of validation at
    most `max_eval_samples` are read.

    Raises DataError where too few are left.
    """
    from rmkit.training.data import read_rows

    rows: dict[str, Sequence[TrainingRow]] = {}
    skipped: dict[str, dict[str, int]] = {}
    for split, least in (("train", MIN_TRAIN), ("validation", MIN_VALIDATION)):
        validation = split == "validation"
        of_split = examples(folder, split)
        if validation and max_eval_samples is not None:
            of_split = iter(drawn(list(of_split), max_eval_samples))
        usable, reasons = read_rows(of_split, chat, objective=objective, head=head, validation=validation)
        check_enough(split, len(usable), reasons, rows=len(usable) + sum(reasons.values()), least=least)
        rows[split], skipped[split] = usable, reasons
    return rows, skipped


def drawn(examples: Sequence[Example], n: int) -> list[Example]:
    """At most n of the examples in their order, those whose ids have the smallest hashes: the same in every run, and
    those of a smaller n among those of a larger one."""
    by_hash = sorted(range(len(examples)), key=lambda at: hashlib.sha256(examples[at].id.encode()).digest())
    return [examples[at] for at in sorted(by_hash[:n])]


def examples(folder: Path, split: str) -> Iterator[Example]:
    """Examples of the first of the split's names that the export has, read when the first is taken."""
    *others, last = SPLIT_NAMES.get(split, (split,))
    for name in others:
        with contextlib.suppress(DataError):
            yield from examples_of(folder, name)
            return
    yield from examples_of(folder, last)
