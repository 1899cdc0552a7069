"""The numbers that the benchmark pages print are those that their commands give, and say which revision gave them.

A block that begins with ```console rerun holds commands ("$ rmkit ...") and what they print, to be run in the order of
the page in an empty home; ```python rerun holds Python before them. `...` in what is printed stands for anything, as
lines of its own or within a line. Numbers may differ by a hundredth of themselves, for the last bits of a fit follow
the processor. What takes more than two minutes on two cores, or measures time, is not marked.
"""

from __future__ import annotations

import math
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs" / "benchmarks").glob("*.md"))
_BLOCK = re.compile(r"^```(console|python) rerun\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_TOKEN = re.compile(r"\.\.\.|\w*[A-Za-z_]\w*|[-+]?\d[\d,]*(?:\.\d+)?|\S")
_REVISION = re.compile(r"revision `?([0-9a-f]{12})\b")
MARKED = [page for page in PAGES if _BLOCK.search(page.read_text())]

T = TypeVar("T")


def fits(expected: Sequence[T], actual: Sequence[T], equal: Callable[[T, T], bool]) -> bool:
    """Whether the sequences are equal, one of three dots in `expected` standing for any number of elements."""
    i, j, after_dots = 0, 0, None
    while j < len(actual):
        if i < len(expected) and expected[i] == "...":
            i, after_dots = i + 1, (i + 1, j)
        elif i < len(expected) and equal(expected[i], actual[j]):
            i, j = i + 1, j + 1
        elif after_dots is not None:  # the dots take one more
            after_dots = (after_dots[0], after_dots[1] + 1)
            i, j = after_dots
        else:
            return False
    return all(rest == "..." for rest in expected[i:])


def same_line(expected: str, actual: str) -> bool:
    return fits(_TOKEN.findall(expected), _TOKEN.findall(actual), same_token)


def same_token(expected: str, actual: str) -> bool:
    if expected == actual:
        return True
    try:
        first, second = (float(token.replace(",", "")) for token in (expected, actual))
    except ValueError:
        return False
    return math.isclose(first, second, rel_tol=0.01)


def commands_of(block: str) -> list[tuple[str, list[str]]]:
    """Every command of a console block with the lines that it prints."""
    found: list[tuple[str, list[str]]] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif line.strip():
            found[-1][1].append(line)
    return found


def test_what_fits() -> None:
    assert same_line("overall  35.67 [32.6, 38.8] 351 / 984", "overall 35.57  [32.5, 38.7]  350 / 984")
    assert not same_line("overall 35.67", "overall 36.67")
    assert not same_line("hash c985d0e2c1cb", "hash c985d0e2c1cc")
    assert same_line("took ... s, 2,000 of 1,990", "took 12.5 s, 1990 of 1,990")
    assert fits(["a", "...", "b 1"], ["a", "x", "y", "b 1"], same_line)
    assert not fits(["a", "...", "b 1"], ["a", "x", "b 1", "y"], same_line)
    assert commands_of("$ rmkit a\n1\n\n2\n$ rmkit b\n") == [("rmkit a", ["1", "2"]), ("rmkit b", [])]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_page_says_which_revision_gave_its_numbers(page: Path) -> None:
    assert _REVISION.search(page.read_text()), f"{page.name}: no revision; its command writes it since revisions exist"


@pytest.mark.slow
@pytest.mark.parametrize("page", MARKED, ids=lambda page: page.stem)
def test_quick_commands_print_the_numbers_of_the_page(page: Path, shared_data: Path, tmp_path: Path) -> None:
    home = {"RMKIT_HOME": str(tmp_path / "home"), "DATA": str(shared_data), "COLUMNS": "200"}
    environment = {**os.environ, **home, "PYTHONPATH": str(ROOT)}
    work = tmp_path / "work"
    work.mkdir()

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=work, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    for language, block in _BLOCK.findall(page.read_text()):
        if language == "python":
            run("-c", block)
            continue
        for command, expected in commands_of(block):
            program, *arguments = shlex.split(command.replace("$DATA", str(shared_data)), comments=True)
            assert program == "rmkit"
            actual = [line for line in run("-m", "rmkit", *arguments).splitlines() if line.strip()]
            assert fits(expected or ["..."], actual, same_line), "\n".join([command, *actual])
