"""The rows of an export that training and validation read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rmkit.data.example import Example
from rmkit.data.export_folder import SPLIT_NAMES, examples_of
from rmkit.data.reasons import check_enough
from rmkit.errors import DataError
from rmkit.training.objectives.objective import Objective

if TYPE_CHECKING:
    from rmkit.models.transformer.rating_head import RatingHead
    from rmkit.training.rows import TrainingRow

MIN_TRAIN, MIN_VALIDATION = 20, 5


class Splits(NamedTuple):
    """By split: usable rows, how many were skipped by reason, and how many of the usable ones were truncated."""

    rows: dict[str, Sequence[TrainingRow]]
    skipped: dict[str, dict[str, int]]
    truncated: dict[str, int]


def read_splits(
    folder: Path,
    chat: Any,
    objective: Objective,
    head: RatingHead | None = None,
    *,
    max_eval_samples: int | None = None,
) -> Splits:
    """The train and validation splits, from the token store: encoded now where they were not. Of validation at most
    `max_eval_samples` rows are read.

    Raises DataError where too few are left.
    """
    from rmkit.training.tokens.encode import stored_rows

    result = Splits({}, {}, {})
    for split, least in (("train", MIN_TRAIN), ("validation", MIN_VALIDATION)):
        validation = split == "validation"
        stored = stored_rows(
            folder,
            names_of(split),
            chat,
            objective=objective,
            head=head,
            validation=validation,
            at_most=max_eval_samples if validation else None,
        )
        reasons = stored.skipped
        check_enough(split, len(stored), reasons, rows=len(stored) + sum(reasons.values()), least=least)
        result.rows[split], result.skipped[split], result.truncated[split] = stored, reasons, stored.truncated
    return result


def examples(folder: Path, split: str) -> Iterator[Example]:
    """Examples of the first of the split's names that the export has, read when the first is taken."""
    *others, last = names_of(split)
    for name in others:
        with contextlib.suppress(DataError):
            yield from examples_of(folder, name)
            return
    yield from examples_of(folder, last)


def names_of(split: str) -> tuple[str, ...]:
    """What exports call a split; the first that one has is read."""
    return SPLIT_NAMES.get(split, (split,))
