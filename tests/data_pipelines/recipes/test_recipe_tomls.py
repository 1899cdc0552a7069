"""Every TOML file of the tree loads as what it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_pipelines.loops.loop import read_loop
from data_pipelines.recipes.recipe import read_recipe, shipped
from rmkit.config import read_toml

ROOT = Path(__file__).parents[3]
FOLDERS = ("rmkit", "rubrics", "warehouse", "data_pipelines", "evaluation", "labeling_ui", "tests", "docs")
TOMLS = sorted([*ROOT.glob("*.toml"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.toml"))])


@pytest.mark.parametrize("path", TOMLS, ids=lambda path: str(path.relative_to(ROOT)))
def test_toml_loads(path: Path) -> None:
    table = read_toml(path)
    assert table
    if "loop" in table:
        assert len(read_loop(str(path)).steps) == len(table["step"])
    elif "step" in table:
        assert len(read_recipe(str(path)).steps) == len(table["step"])


def test_shipped_recipes_say_what_they_do_and_end_in_a_split() -> None:
    assert {"clean", "strict"} <= set(shipped())
    for name in shipped():
        recipe = read_recipe(name)
        assert recipe.name == name
        assert recipe.description
        assert recipe.steps[-1][0] == "split"
        assert recipe.resolved()["step"][-1]["seed"] == 0
