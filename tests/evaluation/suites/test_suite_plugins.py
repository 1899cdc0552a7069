"""A scoring rule and a form of the user's own, in one file that the suite's TOML names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evaluation.front import evaluate
from evaluation.registry.leaderboard import _suite
from evaluation.suites.suite import load_suite
from rmkit.errors import ConfigError

MODULE = """
import math
from evaluation.scoring.rule import Rule, each
from evaluation.suites.forms import each as each_row, item_of
from evaluation.suites.items import Credit, unscored_credit

def closeness(item, answer):
    score = answer.scores[0]
    if math.isnan(score):
        return [unscored_credit(item, item.subset)]
    return [Credit(item.id, item.cluster, item.subset, max(0.0, 1 - abs(score - item.gold["rating"])))]

RULE = Rule(each(closeness), chance=lambda item, answer: 0.25)
ROWS = each_row("rated", lambda row, row_id: item_of(
    row_id, "all", row["prompt"], [row["reply"]], {"rating": row["rating"]}))

def credits(suite, items, answers, kind):
    return [Credit(item.id, item.cluster, "all", float(kind == "explicit")) for item in items]
"""
SUITE = """
name = "rated"
title = "Ratings"
rule = "suite_plugin_of_a_test:RULE"
form = "suite_plugin_of_a_test:ROWS"
unscored = "chance"
open = true

[[measure]]
name = "closeness"
pool = ["*"]
"""


@pytest.fixture
def folder(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "suite_plugin_of_a_test.py").write_text(MODULE)
    (tmp_path / "rated.toml").write_text(SUITE)
    rows = [
        {"prompt": "p", "reply": "x" * 6, "rating": 2.0},  # log(7) = 1.9459
        {"prompt": "q", "reply": "xx", "rating": 4.0},  # far off
        {"prompt": "r", "reply": "", "rating": 1.0},  # not scored: a quarter of all
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_rule_and_a_form_in_one_file(folder: Path) -> None:
    [model] = evaluate("length", suite=str(folder / "rated.toml"), data=folder / "rows.jsonl").models
    measured = model.measures["closeness"]
    assert measured.of_all is not None
    assert (measured.numerator, measured.denominator) == pytest.approx((0.9459101, 1 + 1))
    assert (measured.of_all.numerator, measured.of_all.denominator) == pytest.approx((0.9459101 + 0.25, 3))
    plain = SUITE.replace(":RULE", ":credits").replace('unscored = "chance"\n', "")
    (folder / "rated.toml").write_text(plain)
    [model] = evaluate("length", suite=str(folder / "rated.toml"), data=folder / "rows.jsonl").models
    assert model.measures["closeness"].numerator == 3  # the function alone is a rule


def test_what_a_suite_may_not_name_is_one_line(folder: Path) -> None:
    file = folder / "rated.toml"
    for wrong, message in (
        (":NOTHING", "'suite_plugin_of_a_test:NOTHING' cannot be loaded"),
        ("s:RULE", "cannot be loaded"),
    ):
        file.write_text(SUITE.replace(":RULE", wrong))
        with pytest.raises(ConfigError, match=message):
            load_suite(str(file))
    file.write_text(SUITE.replace("suite_plugin_of_a_test:RULE", "nway"))
    with pytest.raises(ConfigError, match="rule 'nway' has none"):
        load_suite(str(file))
    row = {"prompt": "p", "rating": 1}
    (folder / "rows.jsonl").write_text(json.dumps(row))
    file.write_text(SUITE)
    with pytest.raises(Exception, match=r"row 1: not of form 'rated' \(KeyError: 'reply'\)"):
        evaluate("length", suite=str(file), data=folder / "rows.jsonl")


def test_a_stored_result_cannot_name_a_file_of_rules(folder: Path) -> None:
    assert _suite(str(folder / "rated.toml")) is None
