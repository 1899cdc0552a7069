"""The results page of judges and rubrics: one section per benchmark, replaced when that benchmark runs with --page."""

from __future__ import annotations

import os
import platform
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from rmkit.revision import versions_text

HEAD = "# Benchmarks of judges and rubrics\n"


def write_section(page: Path, *, name: str, about: str, argv: Sequence[str], text: str) -> None:
    """Replace the section of `rmkit bench NAME` on the page, or add it; command, machine and revision stand in it."""
    arguments = _without_page(argv)
    machine = f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}"
    section = "\n".join(
        [
            f"## {name}",
            "",
            f"    {shlex.join(['rmkit', 'bench', name, *arguments])}",
            "",
            about,
            "",
            "```",
            text,
            "```",
            "",
            f"{machine}, {versions_text()}; load average at the end {os.getloadavg()[0]:.1f}.",
            "",
        ]
    )
    before = page.read_text() if page.exists() else HEAD
    pattern = re.compile(rf"(?ms)^## {re.escape(name)}\n.*?(?=^## |\Z)")
    kept_text = pattern.sub("", before).rstrip()
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(f"{kept_text}\n\n{section}")


def _without_page(argv: Sequence[str]) -> list[str]:
    kept_text, skip = [], False
    for argument in argv:
        if skip or argument.startswith("--page="):
            skip = False
        elif argument == "--page":
            skip = True
        else:
            kept_text.append(argument)
    return kept_text
