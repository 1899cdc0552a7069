"""The one way from a lower room to an upper one: imports run one way, so what stands above is named and loaded late."""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rmkit.errors import UsageError

ROOT = Path(__file__).resolve().parents[1]  # where rmkit and its rooms lie side by side
UPPER = {
    "export_folder": "warehouse.out.export:export_folder",
    "train_judge": "data_pipelines.judge.training.command:main",
    "row_context": "rubrics.row_context:context_of",
    "rubric_writer": "rubrics.rubric_rm:load",
    "rubric_clauses": "rubrics.clause_model:load",
}


def upper(name: str) -> Any:
    """What stands above under this name. Errors as `resolve`."""
    return resolve(UPPER[name])


def resolve(target: str) -> Any:
    """The object that "module:object" names, the module being rmkit's own.

    Raises UsageError, before anything of it runs, where a file or folder of the user's has the name of an rmkit room.
    """
    name, _, attribute = target.partition(":")
    room = name.partition(".")[0]
    place = _place(room)
    if place is not None and ROOT not in place.parents:
        raise UsageError(
            f"{place} hides the package {room!r} that rmkit brings; rename it, or put {ROOT} before it on sys.path (as "
            "the command line does)"
        )
    return getattr(importlib.import_module(name), attribute)


def _place(room: str) -> Path | None:
    """The folder or file that `import room` means, None where there is none."""
    loaded = sys.modules.get(room)
    spec = loaded.__spec__ if loaded else find_spec(room)
    if spec is None:
        return None
    folders = list(spec.submodule_search_locations or ())  # a folder without __init__.py has no origin
    place = folders[0] if folders else spec.origin
    return Path(place).resolve() if place else None
