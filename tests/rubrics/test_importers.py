"""Published rubrics in their own forms, and all of the real files."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest

from rmkit.errors import ConfigError, DataError
from rmkit.ledger import open_ledger
from rmkit.types import Message
from rubrics.importers import import_rubric
from rubrics.rubric_file import Rubric, read_rubric, use

LEVELS = {f"score{score}_description": f"level {score}" for score in range(1, 6)}
BIGGEN = {
    "id": "b1",
    "capability": "planning",
    "system_prompt": "You plan.",
    "input": "Plan a day.",
    "score_rubric": {"criteria": "Is the plan feasible?", **LEVELS},
}
FLASK = {
    "instruction": "Rewrite it.",
    "skill_rubrics": [
        {"skill": "Readability", "question": "Is it readable?", "scores": {str(s): f"level {s}" for s in range(1, 6)}}
    ],
}
DEEP = {
    "prompt": "Research it.",
    "dimension_weight": {"insight": 0.6, "readability": 0.4},
    "criterions": {
        "insight": [
            {"criterion": "Deep?", "explanation": "how deep", "weight": 0.7},
            {"criterion": "New?", "explanation": "how new", "weight": 0.3},
        ],
        "readability": [{"criterion": "Clear?", "explanation": "how clear", "weight": 1.0}],
    },
}
HEALTH = {
    "prompt": [{"role": "user", "content": "I have a cough."}],
    "rubrics": [
        {"criterion": "Asks how long", "points": 5, "tags": ["level:example", "axis:context_awareness"]},
        {"criterion": "Names a drug without need", "points": -6, "tags": ["axis:accuracy"]},
    ],
}


def test_biggen() -> None:
    prompt, [criterion] = import_rubric(BIGGEN)
    assert prompt == (Message("system", "You plan."), Message("user", "Plan a day."))
    assert (criterion.criterion, criterion.dimension) == ("Is the plan feasible?", "planning")
    assert criterion.levels == {score: f"level {score}" for score in range(1, 6)}


def test_flask() -> None:
    prompt, [criterion] = import_rubric(FLASK)
    assert prompt == (Message("user", "Rewrite it."),)
    assert (criterion.dimension, criterion.levels[5]) == ("Readability", "level 5")


def test_deepresearch_weights_multiply_through_dimensions() -> None:
    _, criteria = import_rubric(DEEP)
    assert [c.weight for c in criteria] == pytest.approx([0.42, 0.18, 0.4])
    assert [c.dimension for c in criteria] == ["insight", "insight", "readability"]
    assert criteria[0].explanation == "how deep"


def test_healthbench_keeps_penalties() -> None:
    _, criteria = import_rubric(HEALTH)
    assert [(c.weight, c.dimension) for c in criteria] == [(5.0, "context_awareness"), (-6.0, "accuracy")]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({}, "no known form"),
        (BIGGEN | {"rubric": []}, "no known form"),
        (BIGGEN | {"score_rubric": {"criteria": "x"}}, "score1_description must be a text"),
        (BIGGEN | {"input": ""}, "input must be a text"),
        (FLASK | {"skill_rubrics": [{"skill": "x"}]}, "question|scores"),
        (DEEP | {"dimension_weight": {"insight": 1.0}}, "no weight for 'readability'"),
        (DEEP | {"dimension_weight": {"insight": 0.6, "readability": 0.5}}, "add up to 1.1, the rubric declares 1"),
        (HEALTH | {"rubrics": [{"criterion": "x", "points": "5"}]}, "points must be a finite number"),
        (HEALTH | {"rubrics": [{"criterion": "x", "points": -5}]}, "no criterion has positive points"),
    ],
)
def test_what_is_missing_or_does_not_add_up_is_named(row: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        import_rubric(row)


@pytest.mark.parametrize(
    ("name", "rows", "n_criteria"), [("biggen", 765, 765), ("flask", 1716, None), ("deepresearch", 100, None)]
)
def test_every_row_of_the_real_files_is_read(shared_data: Path, name: str, rows: int, n_criteria: int | None) -> None:
    with gzip.open(shared_data / f"rubrics_{name}.jsonl.gz", "rt") as lines:
        raw = [json.loads(line) for line in lines]
    found = [import_rubric(row)[1] for row in raw]
    assert len(found) == rows
    assert [len(criteria) for criteria in found] == [len(row["rubric"]) for row in raw]
    assert n_criteria is None or sum(map(len, found)) == n_criteria
    if name == "deepresearch":
        assert all(math.isclose(sum(c.weight for c in criteria), 1.0, abs_tol=0.011) for criteria in found)
    else:
        assert all(sorted(c.levels) == [1, 2, 3, 4, 5] for criteria in found for c in criteria)


# ---- rubric files ----

TOML = """
name = "helpful"
version = 1
total = 1.0
[[criteria]]
criterion = "Is it right?"
levels = {1 = "no", 5 = "yes"}
weight = 0.6
tag = "principle"
[[criteria]]
criterion = "The response has at most 9 words."
weight = 0.4
tag = "hard_rule"
check = {rule = "max_words", value = 9}
"""


@pytest.fixture
def rubric(tmp_path: Path) -> Rubric:
    (tmp_path / "r.toml").write_text(TOML)
    return read_rubric(tmp_path / "r.toml")


def test_a_rubric_file_is_read_whole(rubric: Rubric) -> None:
    assert (rubric.ref, len(rubric.criteria)) == ("helpful@v1", 2)
    assert rubric.criteria[1].check == {"rule": "max_words", "value": 9}
    assert rubric.criteria[0].levels == {1: "no", 5: "yes"}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("0.6", "0.5", r"weights add up to 0\.9, the rubric declares 1"),
        ("max_words", "be_nice", "unknown rule"),
        ("version = 1", "version = 0", "whole number from 1"),
        ('name = "helpful"', 'name = "a@b"', "name must be a text without @"),
        ("total", "color", "unknown color"),
        ('criterion = "Is it right?"', 'criterion = ""', "needs a text"),
        ("[[criteria]]", "[[items]]", "unknown items|at least one"),
    ],
)
def test_a_faulty_rubric_file_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    (tmp_path / "r.toml").write_text(TOML.replace(old, new))
    with pytest.raises(ConfigError, match=said):
        read_rubric(tmp_path / "r.toml")


def test_a_used_rubric_cannot_be_changed_under_its_version(rubric: Rubric, tmp_path: Path) -> None:
    with open_ledger(tmp_path / "ledger.sqlite") as ledger:
        use(rubric, ledger)
        use(rubric, ledger)
        changed = Rubric(rubric.name, 1, rubric.criteria[:1])
        with pytest.raises(ConfigError, match="helpful@v1 was changed after it had been used; save it as version 2"):
            use(changed, ledger)
        use(Rubric(rubric.name, 2, rubric.criteria[:1]), ledger)
