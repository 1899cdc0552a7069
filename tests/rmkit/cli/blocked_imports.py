"""Run commands one after the other in a process in which only some of rmkit's extras are installed.

    python blocked_imports.py EXTRAS < COMMANDS        extras with commas between them; [["ingest", "a.jsonl"], ...]

Prints, a line a command, its status and what it wrote: {"status": 0, "out": "...", "err": "..."}. A distribution that
neither the base nor the extras bring, by way of others too, cannot be imported or located.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any

from rmkit import extras
from rmkit.cli.main import main

OURS = ("rmkit", "rubrics", "warehouse", "data_pipelines", "evaluation", "labeling_ui")


def closure(names: Iterable[str]) -> set[str]:
    """These distributions and all that they bring."""
    reached: set[str] = set()
    waiting = list(names)
    while waiting:
        name = normalized(waiting.pop())
        if name in reached:
            continue
        reached.add(name)
        with contextlib.suppress(metadata.PackageNotFoundError):
            lines = [line for line in metadata.requires(name) or [] if "extra ==" not in line]
            waiting += [match[0] for line in lines if (match := re.match(r"[\w.-]+", line))]
    return reached


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


class Installed:
    """Finds modules as Python does, but for those of distributions that are not `installed`."""

    def __init__(self, installed: set[str]) -> None:
        self.installed = installed
        self.hidden = {
            module
            for module, names in metadata.packages_distributions().items()
            if not installed & set(map(normalized, names)) and module not in OURS
        }

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        return None if name.partition(".")[0] in self.hidden else PathFinder.find_spec(name, path, target)

    def find_distributions(self, context: Any) -> Iterator[metadata.Distribution]:
        return (one for one in PathFinder.find_distributions(context) if normalized(one.name) in self.installed)


def run(arguments: list[str]) -> dict[str, Any]:
    before = set(sys.modules)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status: int | str | None = main(arguments)
        except SystemExit as stopped:
            status = stopped.code
        except BaseException:
            status = "traceback"
            traceback.print_exc()
    for name in set(sys.modules) - before:  # so that the next command imports its modules itself
        if name.partition(".")[0] in OURS:
            del sys.modules[name]
            parent, _, leaf = name.rpartition(".")
            if parent in sys.modules:  # or `from parent import leaf` would still give the old module
                vars(sys.modules[parent]).pop(leaf, None)
    return {"status": status, "out": out.getvalue(), "err": err.getvalue()}


if __name__ == "__main__":
    brought = extras.distributions()
    names = closure(name for extra in ["", *filter(None, sys.argv[1].split(","))] for name in brought[extra])
    sys.meta_path[sys.meta_path.index(PathFinder)] = Installed(names | {"rmkit"})  # type: ignore[call-overload]
    for command in json.load(sys.stdin):
        print(json.dumps(run(command)), flush=True)
