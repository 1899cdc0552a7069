"""At which token a reward is read: the rules that are in use, over the ids of one text without padding.

    last               the last id
    not-pad            the rightmost id that is not the pad id (transformers 5)
    before-first-pad   the id before the first pad id, the last where there is none (transformers 4, custom classes)
    {last = ID}        the rightmost ID
    {match = [IDS]}    the first id of the rightmost place where these ids follow one another

They differ where a text itself holds the pad id, as one that ends with EOS does when EOS is the pad token too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rmkit.errors import DataError


def position(ids: Sequence[int], at: str | Mapping[str, Any], *, pad_id: int | None) -> int:
    """The index by a rule. Raises DataError where the rule finds none."""
    match at:
        case "last":
            return len(ids) - 1
        case "not-pad":
            return next((i for i in range(len(ids) - 1, -1, -1) if ids[i] != pad_id), len(ids) - 1)
        case "before-first-pad":
            first = next((i for i, one in enumerate(ids) if one == pad_id), 0)
            return (first - 1) % len(ids)
        case {"last": int(wanted)}:
            if wanted not in ids:
                raise DataError(f"the text has no id {wanted}, where the reward is read; was it cut?")
            return len(ids) - 1 - list(reversed(ids)).index(wanted)
        case {"match": [*pattern]}:
            width = len(pattern)
            for start in range(len(ids) - width, -1, -1):
                if list(ids[start : start + width]) == pattern:
                    return start
            raise DataError(f"the text has no ids {pattern} in a row, where the gate is read; was the prompt cut?")
    raise ValueError(f"no rule of one place: {at!r}")
