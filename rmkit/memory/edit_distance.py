"""What a correction cost: the edit distance of two texts in words (Levenshtein 1966)."""

from __future__ import annotations

import numpy as np


def edit_distance(draft: str, edited: str) -> int:
    """Fewest words inserted, deleted or replaced to make one text the other; words are what blanks part."""
    one, other = draft.split(), edited.split()
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys([*one, *other]))}
    target = np.array([vocabulary[word] for word in other], dtype=np.int64)
    steps = np.arange(len(target) + 1)
    row = steps.copy()
    for number, word in enumerate(one, start=1):
        # replaced or deleted, then inserted from the left: the smallest of row[j] + (k - j) over j <= k
        best = np.concatenate(([number], np.minimum(row[:-1] + (target != vocabulary[word]), row[1:] + 1)))
        row = np.minimum.accumulate(best - steps) + steps
    return int(row[-1])
