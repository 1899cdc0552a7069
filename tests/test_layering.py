"""Imports run one way only: rmkit <- rubrics <- warehouse <- data_pipelines <- evaluation <- labeling_ui."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ["rmkit", "rubrics", "warehouse", "data_pipelines", "evaluation", "labeling_ui"]
SOURCES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
FILES = (".json", ".duckdb", ".toml", ".sqlite", ".html", ".md")
TOP_LEVEL = {*ROOMS, "tests", "docs"}
TOP_FILES = {"pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "Makefile", "constraints.txt"}

# A bare GPU box has torch, transformers, accelerate and pyarrow; scoring and training must not need more.
KERNEL_MAY_NOT = {"duckdb", "polars", "trl", "streamlit"}
# `rmkit --help` must stay instant.
FRONT_DOOR = ["cli/main", "cli/arguments", "cli/verbs", "cli/display", "cli/doctor", "cli/quickstart"]
FRONT_DOOR += ["config", "types", "errors", "ids", "paths", "plugins"]
HEAVY = {"torch", "transformers", "numpy", "pyarrow", "sklearn", "scipy", "matplotlib", "rich", "datasets"}


@functools.cache
def nodes(path: Path) -> list[ast.Import | ast.ImportFrom | ast.Constant]:
    """Imports and constants of a file, those inside functions too."""
    kinds = (ast.Import, ast.ImportFrom, ast.Constant)
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds)]


@functools.cache
def imported(path: Path, *, top_level_only: bool = False) -> set[str]:
    """Dotted names of absolute imports, as modules."""
    found = set()
    for node in ast.parse(path.read_text()).body if top_level_only else nodes(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} uses a relative import; write the full name"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def refused(paths: Iterable[Path], wrong: Callable[[Path], set[str]]) -> dict[str, set[str]]:
    """What is wrong in each file where something is. One test walks them all: a test for each file cost more than
    reading it."""
    by_file = {str(path.relative_to(ROOT)): wrong(path) for path in paths}
    return {name: names for name, names in by_file.items() if names}


def test_imports_never_point_right() -> None:
    def wrong(path: Path) -> set[str]:
        room = path.relative_to(ROOT).parts[0]
        forbidden = set(ROOMS[ROOMS.index(room) + 1 :])
        return {name for name in imported(path) if name.split(".")[0] in forbidden}

    assert not refused(SOURCES, wrong)


def test_the_kernel_runs_on_a_bare_gpu_box() -> None:
    def wrong(path: Path) -> set[str]:
        allowed = {"trl"} if path.parent.name == "clients" else set()  # what stands inside of that trainer
        return {name.split(".")[0] for name in imported(path)} & (KERNEL_MAY_NOT - allowed)

    assert not refused((ROOT / "rmkit").rglob("*.py"), wrong)


@pytest.mark.parametrize("name", FRONT_DOOR)
def test_the_front_door_imports_nothing_heavy(name: str) -> None:
    roots = {module.split(".")[0] for module in imported(ROOT / "rmkit" / f"{name}.py", top_level_only=True)}
    assert not roots & (HEAVY | KERNEL_MAY_NOT)


def test_no_circle_between_files_imports_inside_functions_included() -> None:
    modules = {_module(path): path for path in SOURCES}
    edges = {
        name: {other for other in imported(path) if other in modules and other != name}
        for name, path in modules.items()
    }
    done: set[str] = set()
    while free := {name for name, needs in edges.items() if name not in done and needs <= done}:
        done |= free
    left = {name: sorted(needs - done) for name, needs in edges.items() if name not in done}
    assert not left, f"a circle among these files and what they need: {left}"


def test_no_room_names_an_upper_one_in_a_string() -> None:
    """The tables of plug-ins and of commands are the only places that do."""

    def wrong(path: Path) -> set[str]:
        room, *rest = path.relative_to(ROOT).parts
        if room == "rmkit" and (rest[0] == "cli" or rest == ["plugins.py"]):
            return set()
        target = re.compile(rf"(?:{'|'.join(ROOMS[ROOMS.index(room) + 1 :]) or '$^'})(?:\.[a-z_]\w*)+(?::\w+)?")
        strings = {node.value for node in nodes(path) if isinstance(node, ast.Constant)}
        named = {text for text in strings if isinstance(text, str) and target.fullmatch(text)}
        return {text for text in named if not text.endswith(FILES)}

    assert not refused(SOURCES, wrong)


def _module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_the_top_level_holds_what_the_design_names_and_nothing_else() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = {line.split("/")[0] for line in tracked.splitlines()}
    assert {name for name in names if not name.startswith(".")} == TOP_LEVEL | TOP_FILES


def test_help_imports_neither_torch_nor_any_other_heavy_package() -> None:
    code = (
        "import sys; from rmkit.cli.main import main; main(['--help']); "
        f"heavy = {sorted(HEAVY | KERNEL_MAY_NOT)!r}; print([m for m in heavy if m in sys.modules], file=sys.stderr)"
    )
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert asked.stderr.strip() == "[]"
    assert "rmkit quickstart" in asked.stdout
