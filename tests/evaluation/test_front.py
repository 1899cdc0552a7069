"""`evaluate` and `rmkit eval` on datasets: hand-checked numbers, several models, stored rows, refusals."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.front import compare, evaluate
from evaluation.suites.journal import ANSWERS
from evaluation.suites.results import ModelResult
from rmkit.cli import main as cli
from rmkit.data.example import read_examples
from rmkit.data.pairs import column, read_pairs
from rmkit.errors import ConfigError, DataError, ModelError, StoreError, UsageError
from rmkit.ids import content_hash
from rmkit.metrics import calibration, length_bias, pair_accuracy, pair_credit, paired_difference
from rmkit.metrics.calibration import sigmoid
from rmkit.models.small.length import LengthModel
from rmkit.training import command as train
from rmkit.types import Candidates, Comparison, ModelInfo, Score
from tests.exports import kind_rows, row, write_export
from warehouse.store import open_warehouse
from warehouse.versions.versions import commit


class Fixed:
    """Scores a response by a table of texts; what is not in it is unscored. Asked in the given scale."""

    def __init__(self, table: dict[str, float], scale: Any = "logit", name: str = "fixed") -> None:
        self.table = table
        self.info = ModelInfo(name, "explicit", scale, True, name[:1] * 32)

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
def folder(home: Path, tmp_path: Path) -> Path:
    return write_export(tmp_path / "data", ROWS)


def only(model: Fixed, folder: Path, **options: Any) -> ModelResult:
    [result] = evaluate(model, data=folder, **options).models
    return result


def test_every_number_by_hand(folder: Path) -> None:
    result = evaluate(Fixed(TABLE), data=folder)
    assert (result.suite, result.headline, result.data) == ("pairs", "overall", f"{folder}:test")
    assert result.version == {"ref": "made@v1", "split": "test", "digest": content_hash("made@v1") * 2}
    assert result.left_out == {"pairs without a decision": 1, "rows: nothing to compare (kind single)": 1}
    [model] = result.models
    accuracy = model.measures["overall"]
    assert accuracy.numerator == pytest.approx(1 + 2 / 3)
    assert accuracy.denominator == pytest.approx(4)  # q1, q2, q3 and the list as one
    assert (accuracy.n, accuracy.ties, accuracy.unscored, accuracy.clusters) == (6, 1, 1, 3)
    assert accuracy.of_all is not None
    assert accuracy.of_all.denominator == pytest.approx(5)
    assert model.unscored == {"unknown text": 1}
    assert model.probes["length"]["accuracy"]["shorter"]["numerator"] == 0
    assert {name: cell.denominator for name, cell in model.cells.items()} == pytest.approx({"x": 3, "y": 1})
    assert model.probes["margins"]["n"] == 6
    assert [mistake["margin"] for mistake in model.probes["mistakes"]] == [-2.0, -1.0]
    worst = model.probes["mistakes"][0]
    assert (worst["prompt"], worst["better"], worst["worse"]) == ("q2", "b", "aa")
    assert json.loads(json.dumps(result.as_json(), allow_nan=False))["models"][0]["items"] == 7


def test_half_a_point_for_ties_only_when_asked(folder: Path) -> None:
    half = evaluate(Fixed(TABLE), data=folder, ties="half")
    assert half.models[0].measures["overall"].numerator == pytest.approx(1.5 + 2 / 3)
    assert half.ties == {"models": "half", "judges": "half"}
    assert half.suite_hash != evaluate(Fixed(TABLE), data=folder).suite_hash
    with pytest.raises(UsageError, match="--ties is for the rule pairs; suite nway scores by nway"):
        evaluate(Fixed(TABLE), data=folder, suite="nway", ties="half")


def test_intervals_calibration_and_length_are_those_of_the_metrics_on_the_rows_own_order(
    home: Path, tmp_path: Path
) -> None:
    """Against `rmkit.metrics` applied to the pairs directly, bit for bit: soft labels, lists, unlike families."""
    rows = kind_rows(240, flipped=0.3)
    draw = np.random.default_rng(3)
    for index, one in enumerate(rows):
        better = round(float(draw.uniform()), 3)
        one |= {"p": [better, 1 - better], "family": int(draw.integers(60)), "split": "test", "id": f"{index:032x}"}
    rows += [
        row(f"l{i}", ["aa" * (i % 4 + 1), "b" * 3, "c" * 6], kind="list", ranks=[0, 1, 2], family=100 + i, split="test")
        for i in range(9)
    ]
    folder = write_export(tmp_path / "soft", rows)
    pairs, _ = read_pairs(read_examples(folder))
    p, share, family = (column(pairs, name) for name in ("p", "share", "family"))
    sizes = np.array([[len(c.text) for c in pair.candidates.completions] for pair in pairs], dtype=np.float64)
    margin = np.log1p(sizes[:, 0]) - np.log1p(sizes[:, 1])
    expected = pair_accuracy(margin, p, clusters=family, weight=share)
    assert expected.interval is not None
    result = evaluate(
        ["length", Fixed({c.text: 1.0 for pair in pairs for c in pair.candidates.completions})], data=folder
    )
    length = result.models[0]
    accuracy = length.measures["overall"]
    ends = (100 * expected.interval.low, 100 * expected.interval.high)
    assert (accuracy.percent, accuracy.low, accuracy.high) == pytest.approx((100 * expected.value, *ends), abs=1e-9)
    predicted = calibration(sigmoid(margin), p, weight=share)
    measured = length.probes["calibration"]
    for name in ("n", "ece", "brier", "log_loss", "label_entropy"):
        assert measured[name] == pytest.approx(getattr(predicted, name), abs=1e-12)
    bias = length_bias(margin, p, length_first=sizes[:, 0], length_second=sizes[:, 1])
    assert length.probes["length"]["pearson"] == pytest.approx(bias.pearson)
    assert length.probes["length"]["longer_is_better"]["percent"] == pytest.approx(100 * bias.longer_preferred)
    [comparison] = result.comparisons
    credits = [pair_credit(values, p) for values in (margin, np.zeros(len(p)))]
    paired = paired_difference(credits[0], credits[1], family, weight=share)
    assert paired.interval is not None
    overall = {one.measure: one for one in comparison.differences}["overall"]
    ends = (100 * paired.interval.low, 100 * paired.interval.high)
    assert (overall.difference, overall.low, overall.high) == pytest.approx((100 * paired.value, *ends), abs=1e-9)


def test_a_perfect_and_a_reversed_model_mirror_each_other(home: Path, tmp_path: Path) -> None:
    folder = write_export(tmp_path / "data", ROWS[:1])
    good, bad = (only(Fixed({"aa": sign, "b": -sign}, name=name), folder) for sign, name in ((3.0, "g"), (-3.0, "h")))
    assert (good.measures["overall"].percent, bad.measures["overall"].percent) == (100, 0)
    assert math.isnan(good.measures["overall"].low)  # one family has no interval
    assert good.probes["calibration"]["log_loss"] == pytest.approx(math.log1p(math.exp(-6)))
    assert bad.probes["calibration"]["log_loss"] == pytest.approx(6 + math.log1p(math.exp(-6)))


def test_other_scales_are_asked_to_compare_and_the_answer_is_kept(home: Path, tmp_path: Path) -> None:
    folder = write_export(tmp_path / "data", ROWS[:1])
    for resumed in (0, 1):
        result = only(Fixed(TABLE, scale="rating"), folder)
        assert result.progress is not None
        assert result.progress.resumed == resumed
        assert result.probes["calibration"]["brier"] == pytest.approx(0.01)


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
    lexical, length = (one["measures"]["overall"] for one in result["models"])
    assert (result["version"]["split"], lexical["n"], lexical["clusters"]) == ("test", 30, 15)
    assert lexical["percent"] > 90
    [comparison] = result["comparisons"]
    overall = comparison["differences"][-1]
    assert overall["difference"] == pytest.approx(lexical["percent"] - length["percent"])
    assert overall["low"] > 0
    assert result["models"][0]["run"] is None  # no warehouse here
    assert json.loads(out.read_text()) == result
    assert compare([model, LengthModel()], data=data).comparisons[0].as_json() == comparison
    with pytest.raises(UsageError, match="two models or more"):
        compare([model], data=data)


def test_an_evaluation_of_a_dataset_goes_on_where_it_stopped(chain: tuple[str, str]) -> None:
    [whole] = evaluate("length", data=chain[0]).models
    answers = Path(whole.folder or "") / ANSWERS
    lines = answers.read_text().splitlines(keepends=True)
    answers.write_text("".join(lines[:12]) + lines[12][:9])  # as a kill in the middle of a write leaves it
    [again] = evaluate("length", data=chain[0]).models
    assert again.progress is not None
    assert (again.progress.resumed, again.progress.answered) == (12, 18)
    assert again.measures == whole.measures


def test_the_table_names_data_fingerprint_and_denominators(
    chain: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    data, model = chain
    cli.call("eval", ["made-v1-lexical", "length", "--data", data])  # by its name under $RMKIT_HOME/models
    text = capsys.readouterr().out
    fingerprint = json.loads((Path(model) / "reward_model.json").read_text())["fingerprint"]
    assert f"data {data}:test" in text
    assert fingerprint[:12] in text
    assert "/ 30 " in text
    assert "calibration: ECE" in text
    assert "made-v1-lexical minus length" in text


def test_splits_are_named_once(chain: tuple[str, str], tmp_path: Path) -> None:
    assert evaluate("length", data=chain[0], split="all").models[0].items == 150
    assert evaluate("length", data=f"{chain[0]}:validation").models[0].items == 30
    with pytest.raises(UsageError, match=r"--split train: .*:validation names its own split"):
        evaluate("length", data=f"{chain[0]}:validation", split="train")
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"prompt": "p", "chosen": "x", "rejected": "xx"}\n')
    assert evaluate("length", data=file).models[0].measures["overall"].percent == 0
    with pytest.raises(UsageError, match="is no dataset, its files have no splits"):
        evaluate("length", data=file, split="train")
    with pytest.raises(UsageError, match="--data NAME@VERSION"):
        evaluate("length")


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
        runs = connection.sql("SELECT run_id::VARCHAR, kind, name, status FROM run ORDER BY 1").fetchall()
        items = connection.sql(
            "SELECT fingerprint, count(*), count(DISTINCT item), min(len(scores)), avg(p_first), "
            "any_value(suite), any_value(suite_h) FROM eval_item GROUP BY ALL ORDER BY 1"
        ).fetchall()
        links = connection.sql("SELECT run_id::VARCHAR, direction FROM run_io ORDER BY 1").fetchall()
    assert runs == sorted((model["run"], "eval", "pairs", "done") for model in result["models"])
    assert [item[0] for item in items] == sorted(model["fingerprint"] for model in result["models"])
    assert all(item[1:4] == (30, 30, 2) and 0 < item[4] < 1 for item in items)
    assert {item[5:] for item in items} == {("pairs", result["suite_hash"])}
    assert links == [(run[0], "in") for run in runs]


def test_stored_numbers_of_a_row_are_in_the_rows_own_order(folder: Path) -> None:
    with open_warehouse():
        pass
    only(Fixed(TABLE | {"aa": 3.0, "b ": 1.0}), folder)
    with open_warehouse(read_only=True) as connection:
        rows = dict(connection.sql("SELECT item, {'s': scores, 'p': p_first} FROM eval_item").fetchall())
    stored = rows[f"x/{ROWS[2]['id']}"]  # the second response is the better one
    assert stored["s"] == [0.0, 1.0]
    assert stored["p"] == pytest.approx(1 / (1 + math.e))


def test_the_same_model_twice_is_refused(chain: tuple[str, str]) -> None:
    with pytest.raises(UsageError, match="twice"):
        cli.call("eval", [chain[1], "made-v1-lexical", "--data", chain[0]])


def test_a_path_without_a_model_is_refused_before_scoring(chain: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not a reward model"):
        cli.call("eval", ["length", str(tmp_path), "--data", chain[0]])


def test_a_split_without_comparable_rows_is_refused(home: Path, tmp_path: Path) -> None:
    data = str(write_export(tmp_path / "data", ROWS[6:7]))
    with pytest.raises(DataError, match="1 rows: nothing to compare"):
        evaluate("length", data=data)
    with pytest.raises(DataError, match="it has: test"):
        evaluate("length", data=data, split="dev")
    with pytest.raises(ConfigError, match=r"absent\.toml"):
        evaluate("length", data=data, suite="absent.toml")


def test_an_unwritable_result_file_is_named(chain: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        cli.call("eval", ["length", "--data", chain[0], "-o", str(tmp_path / "file" / "result.json")])
