"""`rmkit eval` on made data: hand-checked numbers, several models, stored rows, refusals."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from evaluation.versions import command as evaluate
from evaluation.versions.held_out import HeldOut, load_held_out, score_held_out
from rmkit.cli import main as cli
from rmkit.errors import DataError, ModelError, UsageError
from rmkit.training import command as train
from rmkit.types import Candidates, Comparison, ModelInfo, Score
from tests.exports import kind_rows, row, write_export
from warehouse.store import open_warehouse
from warehouse.versions.versions import commit


class Fixed:
    """Scores a response by a table of texts; what is not in it is unscored. Asked in the given scale."""

    def __init__(self, table: dict[str, float], scale: Any = "logit") -> None:
        self.table = table
        self.info = ModelInfo("fixed", "explicit", scale, True, "f" * 32)

    def score(self, batch: Sequence[Candidates]) -> list[list[Score]]:
        return [[self._one(completion.text) for completion in item.completions] for item in batch]

    def compare(self, batch: Sequence[Candidates]) -> list[Comparison]:
        return [Comparison(0.9) for _ in batch]

    def _one(self, text: str) -> Score:
        return Score(self.table[text]) if text in self.table else Score.failed("unknown text")


ROWS = [
    row("q1", ["aa", "b"], p=[1.0, 0.0], family=1, subset="x", split="test"),  # right, longer is better
    row("q2", ["b", "aa"], p=[1.0, 0.0], family=1, subset="x", split="test"),  # wrong, shorter is better
    row("q3", ["b", "b "], p=[0.0, 1.0], family=2, subset="x", split="test"),  # a tie
    row("q4", ["aa", "zz"], p=[1.0, 0.0], family=3, subset="y", split="test"),  # unscored
    row("q5", ["aa", "b"], p=[0.5, 0.5], family=4, subset="y", split="test"),  # undecided
    row("q6", ["aa", "b", "c"], kind="list", ranks=[0, 1, 2], family=5, subset="y", split="test"),  # 2 of 3 right
    row("q7", ["a"], kind="single", family=6, split="test"),
    row("q8", ["aa", "b"], p=[0.0, 1.0], family=7, split="train"),
]
TABLE = {"aa": 2.0, "b": 0.0, "b ": 0.0, "c": 1.0}


@pytest.fixture
def held_out(tmp_path: Path) -> HeldOut:
    return load_held_out(str(write_export(tmp_path / "data", ROWS)), "test")


def summary(model: Fixed, held_out: HeldOut, **options: Any) -> dict[str, Any]:
    scored = score_held_out(model, held_out, path="here")
    return evaluate.summarize(scored, held_out, ties=options.get("ties", "zero"))


def test_every_number_by_hand(held_out: HeldOut) -> None:
    found = summary(Fixed(TABLE), held_out)
    accuracy = found["accuracy"]
    assert accuracy["numerator"] == pytest.approx(1 + 2 / 3)
    assert accuracy["denominator"] == pytest.approx(4)  # q1, q2, q3 and the list as one
    assert (accuracy["n"], accuracy["ties"], accuracy["unscored"], accuracy["undecided"]) == (6, 1, 1, 1)
    assert accuracy["interval"]["n_clusters"] == 3
    assert found["unscored"] == {"unknown text": 1}
    assert found["length_bias"]["accuracy"]["shorter"]["numerator"] == 0
    assert {name: part["denominator"] for name, part in found["by_subset"].items()} == {"x": 3, "y": 1}
    assert found["margins"]["n"] == 6
    assert [mistake["margin"] for mistake in found["mistakes"]] == [-2.0, -1.0]
    assert found["mistakes"][0] | {"id": ""} == {
        "id": "", "margin": -2.0, "p": 1.0, "prompt": "q2", "better": "b", "worse": "aa",
    }  # fmt: skip


def test_half_a_point_for_ties_only_when_asked(held_out: HeldOut) -> None:
    assert summary(Fixed(TABLE), held_out, ties="half")["accuracy"]["numerator"] == pytest.approx(1.5 + 2 / 3)


def test_a_perfect_and_a_reversed_model_mirror_each_other(tmp_path: Path) -> None:
    held_out = load_held_out(str(write_export(tmp_path / "data", ROWS[:1])), "test")
    good, bad = (summary(Fixed({"aa": sign, "b": -sign}), held_out) for sign in (3.0, -3.0))
    assert (good["accuracy"]["value"], bad["accuracy"]["value"]) == (1, 0)
    assert good["accuracy"]["interval"] is None  # one family has no interval
    assert good["calibration"]["log_loss"] == pytest.approx(math.log1p(math.exp(-6)))
    assert bad["calibration"]["log_loss"] == pytest.approx(6 + math.log1p(math.exp(-6)))


def test_other_scales_are_asked_to_compare(tmp_path: Path) -> None:
    held_out = load_held_out(str(write_export(tmp_path / "data", ROWS[:1])), "test")
    found = summary(Fixed(TABLE, scale="rating"), held_out)
    assert found["calibration"]["brier"] == pytest.approx(0.01)


def test_long_texts_are_excerpted(tmp_path: Path) -> None:
    rows = [row("q " * 500, ["word " * 500, "b"], p=[1.0, 0.0], family=1, split="test")]
    held_out = load_held_out(str(write_export(tmp_path / "data", rows)), "test")
    [mistake] = summary(Fixed({"word " * 500: 0.0, "b": 1.0}), held_out)["mistakes"]
    assert len(mistake["prompt"]) == len(mistake["better"]) == 160
    assert mistake["worse"] == "b"


@pytest.fixture
def chain(home: Path, tmp_path: Path) -> tuple[str, str]:
    """An export folder and a lexical model trained on it."""
    data = str(write_export(tmp_path / "data", kind_rows(150)))
    return data, str(train.train("lexical", data)["path"])


def test_models_are_compared_with_the_first(
    chain: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, model = chain
    out = tmp_path / "out" / "result.json"
    assert cli.call("eval", [model, "length", "--data", data, "-o", str(out), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in result["models"]] == ["made-v1-lexical", "length"]
    lexical, length = result["models"]
    assert (result["suite"], result["split"], result["pairs"], result["families"]) == ("made@v1", "test", 30, 15)
    assert lexical["accuracy"]["value"] > 0.9
    [comparison] = result["comparisons"]
    assert comparison["difference"] == pytest.approx(lexical["accuracy"]["value"] - length["accuracy"]["value"])
    assert comparison["interval"]["low"] > 0
    assert result["run"] is None  # no warehouse here
    written = json.loads(out.read_text())
    assert len(written["per_item"]) == 60
    assert {"model", "item", "scores", "margin", "p_first", "label", "unscored"} <= set(written["per_item"][0])
    del written["per_item"]
    assert written == result


def test_the_table_names_data_fingerprint_and_denominators(
    chain: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    data, model = chain
    cli.call("eval", ["made-v1-lexical", "length", "--data", data])  # by its name under $RMKIT_HOME/models
    text = capsys.readouterr().out
    fingerprint = json.loads((Path(model) / "reward_model.json").read_text())["fingerprint"]
    assert "made@v1" in text
    assert fingerprint in text
    assert "/30 " in text
    assert "made-v1-lexical minus length" in text


def test_all_splits_can_be_asked_for(chain: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    cli.call("eval", ["length", "--data", chain[0], "--split", "all", "--json"])
    assert json.loads(capsys.readouterr().out)["pairs"] == 150


def test_items_are_stored_with_their_run_and_version(
    chain: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with open_warehouse() as connection:
        connection.execute("CREATE TEMP TABLE none (example_id BIGINT, split VARCHAR, weight DOUBLE)").fetchall()
        version = commit(connection, "made", "none", message="empty", author="test")
        digest = json.loads((Path(chain[0]) / "manifest.json").read_text())["digest"]
        connection.execute("UPDATE version SET digest = ? WHERE number = ?", [digest, version.number]).fetchall()
    cli.call("eval", [chain[1], "length", "--data", chain[0], "--json"])
    result = json.loads(capsys.readouterr().out)
    with open_warehouse(read_only=True) as connection:
        [run] = connection.sql("SELECT run_id::VARCHAR, kind, name, status FROM run").fetchall()
        items = connection.sql(
            "SELECT fingerprint, count(*), count(DISTINCT item), min(len(scores)), avg(p_first), "
            "any_value(suite), any_value(suite_h) FROM eval_item GROUP BY ALL ORDER BY 1"
        ).fetchall()
        links = connection.sql("SELECT run_id::VARCHAR, direction FROM run_io").fetchall()
    assert run == (result["run"], "eval", "made@v1:test", "done")
    assert [item[0] for item in items] == sorted(model["fingerprint"] for model in result["models"])
    assert all(item[1:4] == (30, 30, 2) and 0 < item[4] < 1 for item in items)
    assert {item[5:] for item in items} == {("made@v1:test", digest)}
    assert links == [(result["run"], "in")]


def test_the_same_model_twice_is_refused(chain: tuple[str, str]) -> None:
    with pytest.raises(UsageError, match="twice"):
        cli.call("eval", [chain[1], "made-v1-lexical", "--data", chain[0]])


def test_a_path_without_a_model_is_refused_before_scoring(chain: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not a reward model"):
        cli.call("eval", ["length", str(tmp_path), "--data", chain[0]])


def test_a_split_without_comparable_rows_is_refused(tmp_path: Path) -> None:
    data = str(write_export(tmp_path / "data", ROWS[6:7]))
    with pytest.raises(DataError, match="1 rows: nothing to compare"):
        load_held_out(data, "test")
    with pytest.raises(DataError, match="it has: test"):
        load_held_out(data, "dev")


def test_an_unwritable_result_file_is_told(chain: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        cli.call("eval", ["length", "--data", chain[0], "-o", str(tmp_path / "file" / "result.json")])
