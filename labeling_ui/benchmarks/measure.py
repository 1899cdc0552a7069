"""What the benchmarks of the studio do alike: an empty home, one run, figures as text or JSON and on a page."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from evaluation.benchmarks.judging.page import write_section
from rmkit.cli import display

Config = TypeVar("Config")


def measure(
    argv: Sequence[str],
    options: argparse.Namespace,
    config: type[Config],
    run: Callable[[Path, Config], dict[str, Any]],
    *,
    name: str,
    about: str,
    text: Callable[[Mapping[str, Any]], str],
) -> dict[str, object]:
    """The figures of `run` in an empty home, printed; `options` hold every field of `config`, `json` and `page`."""
    chosen = config(**{field: getattr(options, field) for field in config.__dataclass_fields__})  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory(prefix="rmkit-studio-") as folder:
        os.environ["RMKIT_HOME"] = folder
        figures = run(Path(folder), chosen)
    shown = text(figures)
    display.emit(figures, as_json=options.json, text=shown)
    if options.page is not None:
        write_section(options.page, name=name, about=about, argv=argv, text=shown)
    return figures
