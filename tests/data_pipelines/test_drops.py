"""`rmkit drops`, and what a recipe says of its steps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_pipelines.ingest.command import ingest
from data_pipelines.recipes.recipe import parse_recipe, run_recipe
from rmkit.cli import main as cli

STEPS = [{"use": "normalize"}, {"use": "quality", "min_words": 2}, {"use": "agreement"}]
VOTES = """id,prompt,response_a,response_b,preference,rater
1,What is 2+2?,It is four.,It is five.,a,ann
1,What is 2+2?,It is four.,It is five.,b,bob
1,What is 2+2?,It is four.,It is five.,b,cyd
2,Name a fruit.,A stone.,An apple.,b,ann
2,Name a fruit.,A stone.,An apple.,b,bob
3,Say yes.,yes,no,a,ann
4,Say no.,yes,no,b,bob
5,Paint.,https://a.example/bcdefgh ok,https://a.example/other ok,a,ann
"""


@pytest.fixture
def cleaned(home: Path, tmp_path: Path) -> str:
    """The output of a run that drops two rows as too short and one as mostly links."""
    path = tmp_path / "votes.csv"
    path.write_text(VOTES)
    ingest(path)
    result = run_recipe(parse_recipe({"recipe": {"name": "r"}, "step": STEPS}, where="test"), "votes", out="clean")
    return str(result["version"])


def test_drops_are_counted_and_listed(cleaned: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["drops", cleaned, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["version"], shown["made_by"], shown["n"]) == ("clean@v1", "recipe r", 3)
    counts = {(one["step"], one["reason"]): one["rows"] for one in shown["counts"]}
    assert counts == {("quality", "too short"): 2, ("quality", "mostly links or markup"): 1}
    by_row = {one["row"]: (one["reason"], one["evidence"], one["prompt"]) for one in shown["rows"]}
    assert by_row["3"] == ("too short", "longest response has 1 words", "Say yes.")
    assert by_row.keys() == {"3", "4", "5"}


def test_drops_by_step_and_reason(cleaned: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["drops", "clean", "--step", "quality", "--reason", "too short", "--limit", "1"]) == 0
    shown = capsys.readouterr().out
    assert "2 rows dropped" in shown
    assert "1 more: --limit 2" in shown
    assert "links" not in shown
    assert cli.main(["drops", "clean", "--step", "agreement"]) == 0
    assert "0 rows dropped" in capsys.readouterr().out
    assert cli.main(["drops", "clean", "--reason", "too shor"]) == 2
    assert "did you mean 'too short'" in capsys.readouterr().err
    assert cli.main(["drops", "votes"]) == 2
    assert "not made by a recipe or a converter" in capsys.readouterr().err


def test_a_recipe_says_what_it_rewrote_and_on_which_order_alpha_is(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Alpha in columns by hand: pair 1 has a, b, b, pair 2 b, b: o_ab = o_ba = 1, o_bb = 3, n = 5, so observed 2,
    expected 1 x 4 x 2 = 8, alpha = 1 - 4 x 2 / 8 = 0."""
    path = tmp_path / "votes.csv"
    lines = VOTES.splitlines()[:6]
    path.write_text("\n".join(lines).replace("What is 2+2?", "What is 2+2? "))
    ingest(path)
    recipe = tmp_path / "r.toml"
    recipe.write_text('[recipe]\nname = "r"\n[[step]]\nuse = "normalize"\n[[step]]\nuse = "agreement"\n')
    assert cli.main(["run", str(recipe), "--data", "votes", "--out", "clean"]) == 0
    shown = capsys.readouterr().out
    assert "normalize: rewrote 1 of 2 rows (trailing_spaces 1)" in shown
    assert "alpha 0.000 [" in shown
    assert "] over 2 rows in the order of the file's columns" in shown
    assert "over 2 rows in stored order (by content hash)" in shown
