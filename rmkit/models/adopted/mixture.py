"""Reader `mixture`: several outputs, weighted by fixed numbers or by a gate that reads the text.

With a gate the head gives 2 K numbers at each token: K rewards, then K weights. The rewards count at the last token
read, the weights at the first (the same one where the gate has no place of its own).
"""

from __future__ import annotations

import math

from rmkit.errors import ConfigError, DataError
from rmkit.models.adopted.headed import HeadedModel, Opening, Rows, open_headed


def open_model(opening: Opening) -> HeadedModel:
    """See `headed.open_headed`. Raises ConfigError where the profile has neither weights nor a gate."""
    table = opening.profile.head
    fixed = table.weights
    if (fixed is None) == (table.gate is None):
        raise ConfigError("reader mixture takes head.weights or head.gate, one of them")

    def number(rows: Rows) -> float:
        if fixed is None:
            half = len(rows[-1]) // 2
            pairs = zip(rows[-1][:half], rows[0][half:], strict=True)
            return math.fsum(reward * weight for reward, weight in pairs)
        if len(fixed) != len(rows[-1]):
            raise DataError(f"head.weights lists {len(fixed)} numbers, and the head gives {len(rows[-1])}")
        return math.fsum(weight * value for weight, value in zip(fixed, rows[-1], strict=True))

    return open_headed(opening, number)
