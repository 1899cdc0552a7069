"""Reader `token`: what a language model thinks of some tokens next, as one raw logit or as a softmax over listed ids.

The vocabulary head is cut down to those ids, so that nothing else of it is computed.
"""

from __future__ import annotations

from rmkit.models.adopted.headed import HeadedModel, Opening, Rows, open_headed, softmax


def open_model(opening: Opening) -> HeadedModel:
    """See `headed.open_headed`."""
    raw = opening.profile.read.logit is not None

    def number(rows: Rows) -> float:
        return rows[-1][0] if raw else softmax(rows[-1])[0]

    return open_headed(opening, number)
