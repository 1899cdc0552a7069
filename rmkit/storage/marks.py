"""How a reader of object storage knows a finished folder: there is no renaming there that would show it whole.

Who publishes a folder first writes UNFINISHED, which lists what will come; then the files; then the file that names the
others, one of LAST, where the folder has one; and then takes UNFINISHED away.
"""

from __future__ import annotations

from collections.abc import Collection

UNFINISHED = "rmkit-unfinished.json"
LAST = ("reward_model.json", "manifest.json")


def is_unfinished(names: Collection[str]) -> bool:
    """Whether the objects of these names are a part of a folder only."""
    return UNFINISHED in names and not any(name in names for name in LAST)
