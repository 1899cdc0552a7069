"""Reasons are counted together where only numbers differ, and told where much is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from rmkit.data.reasons import check_enough, counted, reason_lines, without_numbers
from rmkit.errors import ConfigError, DataError
from rmkit.training import command as train
from rmkit.training.config import ExplicitConfig, ImplicitConfig
from tests.exports import kind_rows, row, write_export

LONG = "the response takes {} tokens and may take {}; raise max_length or set long_response = 'flag'"


def test_reasons_that_differ_in_numbers_are_one() -> None:
    both = "; ".join([LONG.format(812, 500), LONG.format(7, 3), "no prompt"])
    assert without_numbers(both) == LONG.format("N", "N") + "; no prompt"
    counts = counted([LONG.format(9, 8), "no prompt", LONG.format(12, 8)])
    assert reason_lines(counts, of="rows") == [f"2 rows: {LONG.format('N', 'N')}", "1 rows: no prompt"]
    assert reason_lines(counts)[1] == "1: no prompt"
    many = {f"reason {letter}": 20 - at for at, letter in enumerate("abcdefghijk")}
    assert reason_lines(many)[-1] == "33: 3 other reasons"  # 12 + 11 + 10
    assert len(reason_lines(many)) == 9


@pytest.mark.parametrize(("skipped", "told"), [(25, False), (26, True)])
def test_more_than_a_quarter_skipped_is_told(skipped: int, told: bool, capsys: pytest.CaptureFixture[str]) -> None:
    check_enough("train", 80, {"no prompt": 1, "text erased": skipped - 1}, rows=100, least=20)
    said = capsys.readouterr().err.splitlines()
    expected = [
        "warning: 26 of the 100 rows of the train split are skipped",
        "25 rows: text erased",
        "1 rows: no prompt",
    ]
    assert [line.strip() for line in said] == (expected if told else [])
    with pytest.raises(DataError, match=f"80 usable rows, at least 90 are needed .{skipped - 1} rows: text erased; 1"):
        check_enough("train", 80, {"no prompt": 1, "text erased": skipped - 1}, rows=100, least=90)


def test_training_says_why_rows_are_skipped(tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    n = sum(one["split"] == "train" for one in kind_rows(100))
    rows = [*kind_rows(100), *(row(f"q{at}", ["a"], kind="single", split="train") for at in range(n))]
    train.train("lexical", str(write_export(tmp_path / "data", rows)), output=tmp_path / "model")
    said = capsys.readouterr().err
    assert f"{n} of the {2 * n} rows of the train split are skipped" in said
    assert f"{n} rows: nothing to compare (kind single)" in said
    assert "validation" not in said


def test_limits_that_do_not_fit_are_told_before_anything_is_loaded() -> None:
    assert ExplicitConfig(model="m", max_length=1024).truncation.response_reserve_tokens == 512
    assert ImplicitConfig(model="m", max_length=4096).truncation.response_reserve_tokens == 1024
    assert ExplicitConfig(model="m", response_reserve_tokens=100).truncation.max_prompt_tokens == 1948
    with pytest.raises(ConfigError, match=r"must lie between 0 and max_length \(64\), got 64"):
        ExplicitConfig(model="m", max_length=64, response_reserve_tokens=64)
