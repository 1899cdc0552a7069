"""Reader `column`: one output of a head, the difference of two, or the probability of one or several labels.

Families A and D of published models: scalar heads, value heads, classifiers of steps.
"""

from __future__ import annotations

import math

from rmkit.models.adopted.headed import HeadedModel, Number, Opening, Rows, column_of, open_headed, softmax
from rmkit.models.adopted.profile import ReadTable


def open_model(opening: Opening) -> HeadedModel:
    """See `headed.open_headed`."""
    return open_headed(opening, number_of(opening.profile.read))


def number_of(read: ReadTable) -> Number:
    """The profile's [read] as a function of the outputs at the tokens read."""

    def number(rows: Rows) -> float:
        row = rows[-1]
        if read.softmax is None:
            return column_of(row, read.column) - (0.0 if read.minus is None else column_of(row, read.minus))
        p = softmax(row)
        labels = read.softmax if isinstance(read.softmax, list | tuple) else [read.softmax]
        p_labels = math.fsum(column_of(p, label) for label in labels)
        return p_labels - (0.0 if read.minus is None else column_of(p, read.minus))

    return number
