"""The evaluator over every kind of model: what is asked, kept, resumed and refused."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from evaluation.front import evaluate
from evaluation.scoring import credit_table
from evaluation.scoring.measures import measure_all
from evaluation.suites.command import main
from evaluation.suites.evaluator import run, select
from evaluation.suites.forms import read_items
from evaluation.suites.items import Answer, Item
from evaluation.suites.journal import ANSWERS, open_journal, run_folder
from evaluation.suites.results import store
from evaluation.suites.suite import load_suite
from rmkit.errors import BusyError, ModelError, StoreError, UsageError
from rmkit.types import Candidates, Comparison, ModelInfo, Score
from warehouse.store import open_warehouse


class Recording:
    """Scores by the number of x in a reply, unless it says otherwise; remembers what it was asked."""

    def __init__(self, *, kind: str = "explicit", scale: str = "logit", pointwise: bool = True) -> None:
        self.info = ModelInfo("recording", kind, scale, pointwise, "f" * 32)  # type: ignore[arg-type]
        self.asked: list[Candidates] = []
        self.compared: list[Candidates] = []

    def score(self, batch: Sequence[Candidates]) -> list[list[Score]]:
        self.asked += batch
        return [[self.one(completion.text) for completion in item.completions] for item in batch]

    def one(self, text: str) -> Score:
        return Score.failed("too odd") if "odd" in text else Score(float(text.count("x")))

    def compare(self, batch: Sequence[Candidates]) -> list[Comparison]:
        self.compared += batch
        return [self.judge(*(completion.text for completion in pair.completions)) for pair in batch]

    def judge(self, first: str, second: str) -> Comparison:
        if "odd" in first:
            return Comparison.failed("cannot read the verdict")
        return Comparison(0.8 if first.count("x") >= second.count("x") else 0.3)


PAIRS = [
    {"id": "1", "subset": "a", "prompt": "p", "chosen": "xxx", "rejected": "x"},
    {"id": "2", "subset": "a", "prompt": "p", "chosen": "xxx", "rejected": "xxxx"},
    {"id": "3", "subset": "b", "prompt": "a longer prompt", "chosen": "xx", "rejected": "odd"},
    {"id": "4", "subset": "b", "prompt": "q", "chosen": "x", "rejected": "x"},
]


def answers_of(model: Recording, suite: str, items: Sequence[Item], folder: Path) -> dict[str, Answer]:
    with open_journal(folder, {}) as journal:
        run(model, load_suite(suite), items, journal)
        return dict(journal.answers)


def test_pointwise_items_of_one_prompt_are_one_group_of_distinct_replies(tmp_path: Path) -> None:
    model, items = Recording(), read_items("pairs", PAIRS, where="t")
    answers = answers_of(model, "pairs", items, tmp_path)
    groups = [[completion.text for completion in group.completions] for group in model.asked]
    assert groups == [["xx", "odd"], ["xxx", "x", "xxxx"], ["x"]]  # longest first; nothing scored twice
    assert answers["a/2"].scores == (3, 4)
    assert math.isnan(answers["b/3"].scores[1])
    assert answers["b/3"].unscored == "too odd"
    measured = measure_all(load_suite("pairs"), credit_table(load_suite("pairs"), items, answers), resamples=0)
    assert (measured["overall"].numerator, measured["overall"].denominator) == (1, 3)
    assert (measured["overall"].ties, measured["overall"].unscored) == (1, 1)


def test_judges_are_asked_in_both_orders(tmp_path: Path) -> None:
    model, items = Recording(kind="generative", pointwise=False), read_items("pairs", PAIRS, where="t")
    answers = answers_of(model, "pairs", items, tmp_path)
    assert not model.asked
    assert len(model.compared) == 8
    assert answers["a/1"].p == pytest.approx((0.8, 0.7))
    assert answers["a/1"].swap_gap == pytest.approx(0.1)
    assert answers["b/4"].p == pytest.approx((0.8, 0.2))  # favors whatever stands first
    assert answers["b/4"].margin == pytest.approx(0)
    assert answers["b/3"].unscored == "cannot read the verdict"
    assert math.isnan(answers["b/3"].margin)  # half an answer is not half a win


def test_group_relative_models_see_each_list_alone(tmp_path: Path) -> None:
    rows = [
        {"id": str(i), "prompt": "p", "responses": [{"text": "x" * i, "score": 1}, {"text": "y", "score": 0}]}
        for i in (1, 2)
    ]
    model = Recording(kind="generative", scale="win_logit", pointwise=False)
    answers_of(model, "nway", read_items("nway", rows, where="t"), tmp_path)
    assert [len(group.completions) for group in model.asked] == [2, 2]


class StepModel(Recording):
    """A step with a z is wrong."""

    def __init__(self, scale: str) -> None:
        super().__init__(kind="process", scale=scale)

    def score(self, batch: Sequence[Candidates]) -> list[list[Score]]:
        low, high = (0.1, 0.9) if self.info.scale == "probability" else (-3.0, 3.0)
        return [
            [Score(0.0, steps=tuple(low if "z" in s else high for s in c.text.split("\n\n"))) for c in item.completions]
            for item in batch
        ]


@pytest.mark.parametrize("scale", ["probability", "logit"])
def test_step_scores_become_probabilities_with_the_threshold_in_the_middle(tmp_path: Path, scale: str) -> None:
    rows = [
        {"id": "g-1", "prompt": "p", "steps": ["a", "z", "b"], "first_error": 1},
        {"id": "g-2", "prompt": "p", "steps": ["a", "b"], "first_error": -1},
        {"id": "g-3", "prompt": "q", "steps": ["z", "b"], "first_error": 1},
    ]
    items = read_items("steps", rows, where="t")
    answers = answers_of(StepModel(scale), "steps", items, tmp_path)
    measured = measure_all(load_suite("steps"), credit_table(load_suite("steps"), items, answers), resamples=0)
    assert measured["accuracy on erroneous"].percent == 50
    assert measured["accuracy on correct"].percent == 100
    assert measured["F1"].percent == pytest.approx(100 * 2 / 3)


def test_model_of_the_wrong_kind_is_refused(tmp_path: Path) -> None:
    items = read_items("steps", [{"id": "g-1", "prompt": "p", "steps": ["a", "b"], "first_error": 0}], where="t")
    with pytest.raises(ModelError, match=r"needs a score for each step .*explicit.* gave 0; .*process reward model"):
        answers_of(Recording(), "steps", items, tmp_path)
    with pytest.raises(ModelError, match="'rating' have no threshold"):
        answers_of(StepModel("rating"), "steps", items, tmp_path / "b")


def test_model_that_breaks_the_protocol_is_named(tmp_path: Path) -> None:
    class Short(Recording):
        def score(self, batch: Sequence[Candidates]) -> list[list[Score]]:
            return super().score(batch)[:-1]

    with pytest.raises(ModelError, match="recording broke the protocol"):
        answers_of(Short(), "pairs", read_items("pairs", PAIRS, where="t"), tmp_path)


def test_limit_takes_from_every_subset_in_turn() -> None:
    items = [Item(f"{s}{i}", s, s) for s in "abc" for i in range(5)]
    assert [item.id for item in select(items, 5)] == ["a0", "b0", "c0", "a1", "b1"]
    assert len(select(items, None)) == 15


def test_resumed_run_asks_only_for_what_is_missing(tmp_path: Path) -> None:
    items, folder = read_items("pairs", PAIRS, where="t"), tmp_path / "run"
    first = Recording()
    with open_journal(folder, {}) as journal:
        run(first, load_suite("pairs"), items[:2], journal)
    with (folder / ANSWERS).open("ab") as file:
        file.write(b'{"item": "b/3", "scores": [1')  # as a kill in the middle of a write leaves it
    second = Recording()
    with open_journal(folder, {}) as journal:
        progress = run(second, load_suite("pairs"), items, journal)
        assert (progress.resumed, progress.answered) == (2, 2)
        assert {answer: journal.answers[answer].scores for answer in ("a/1", "b/4")} == {"a/1": (3, 1), "b/4": (1, 1)}
    assert len(second.asked) == 2
    lines = [json.loads(line)["item"] for line in (folder / ANSWERS).read_text().splitlines()]
    assert sorted(lines) == ["a/1", "a/2", "b/3", "b/4"]
    with open_journal(folder, {}, fresh=True) as journal:
        assert journal.answers == {}


def test_two_processes_cannot_share_a_run_and_damage_is_told(tmp_path: Path) -> None:
    with open_journal(tmp_path, {}), pytest.raises(BusyError, match="another process"), open_journal(tmp_path, {}):
        pass
    (tmp_path / ANSWERS).write_text('{"scores": [1]}\n')
    with pytest.raises(StoreError, match=r"line 1 is damaged .*--fresh"), open_journal(tmp_path, {}):
        pass


def write_pairs(folder: Path, n: int = 40) -> Path:
    path = folder / "pairs.jsonl"
    rows = [
        {
            "id": str(i),
            "subset": "ab"[i % 2],
            "prompt": f"p{i // 2}",
            "chosen": "x" * (i % 7),
            "rejected": "x" * (i % 5),
        }
        for i in range(1, n + 1)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


SLOW = """
import sys, time
import evaluation.front as front
import evaluation.suites.command as command
from rmkit.models.small.length import LengthModel
class Slow(LengthModel):
    def score(self, batch):
        time.sleep(0.02 * len(batch))
        return super().score(batch)
import evaluation.suites.evaluator as evaluator
evaluator.FIRST_BATCH, evaluator.LARGEST_BATCH = 4, 4
front.load_model = lambda name: Slow()
sys.exit(command.main(sys.argv[1:]))
"""


def test_kill_9_in_the_middle_then_again_gives_the_same_totals_and_no_item_twice(home: Path, tmp_path: Path) -> None:
    data = write_pairs(tmp_path, 120)
    suite = load_suite("pairs")
    whole = evaluate("length", suite=suite, data=data).as_json()["models"][0]
    assert whole["measures"]["overall"]["unscored"] > 0  # empty replies: their absence survives the journal as well
    answers = Path(whole["folder"]) / ANSWERS
    expected = answers.read_text()
    answers.unlink()
    command = [sys.executable, "-c", SLOW, "length", "--suite", "pairs", "--data", str(data), "--json"]
    process = subprocess.Popen(command, env={**os.environ, "RMKIT_HOME": str(home)}, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (answers.exists() and len(answers.read_bytes().splitlines()) >= 8) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = len(answers.read_bytes().splitlines())
    assert 8 <= before < 120
    again = evaluate("length", suite=suite, data=data).as_json()["models"][0]
    assert again["resumed"] in (before, before - 1)
    assert again["resumed"] + again["answered"] == 120
    assert again["measures"] == whole["measures"]
    items = [json.loads(line)["item"] for line in answers.read_text().splitlines()]
    assert len(items) == len(set(items)) == 120 == len(expected.splitlines())


def test_command_stores_items_in_the_warehouse_once(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_pairs(tmp_path)
    with open_warehouse():
        pass
    arguments = ["length", "--suite", "pairs", "--data", str(data), "--json"]
    assert main(arguments) == 0
    result = json.loads(capsys.readouterr().out)
    overall = result["models"][0]["measures"]["overall"]
    assert overall["percent"] == pytest.approx(100 * overall["numerator"] / overall["denominator"])
    assert main(arguments) == 0  # nothing new: nothing is written again
    with open_warehouse(read_only=True) as connection:
        rows = connection.execute("SELECT item, scores, unscored, suite_h, fingerprint FROM eval_item").fetchall()
    assert len(rows) == 40
    assert {row[3] for row in rows} == {result["suite_hash"]}
    assert {row[4] for row in rows} == {result["models"][0]["fingerprint"]}
    unscored = [row for row in rows if row[2]]
    assert unscored
    assert all(None in row[1] for row in unscored)


def test_limit_is_a_smoke_run_that_the_full_run_builds_on(home: Path, tmp_path: Path) -> None:
    data = str(write_pairs(tmp_path))
    suite = load_suite("pairs")
    smoke = evaluate("length", suite=suite, data=data, limit=6).as_json()
    assert smoke["limit"] == 6
    assert smoke["models"][0]["items"] == 6
    assert not (Path(smoke["models"][0]["folder"]) / "result.json").exists()  # a smoke run is not a result
    full = evaluate("length", suite=suite, data=data).as_json()["models"][0]
    assert (full["resumed"], full["answered"]) == (6, 34)
    assert (Path(full["folder"]) / "result.json").exists()
    with pytest.raises(UsageError, match="--limit must be 1 or more"):
        evaluate("length", suite=suite, data=data, limit=0)
    with pytest.raises(UsageError, match="at least one model"):
        evaluate([], suite=suite, data=data)


def test_other_data_or_model_is_another_run(home: Path) -> None:
    folders = {run_folder("s", "h1", "f1"), run_folder("s", "h2", "f1"), run_folder("s", "h1", "f2")}
    assert len(folders) == 3


def test_first_models_result_is_kept_when_the_second_one_fails(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import evaluation.front as front
    from rmkit.models.small.length import LengthModel

    class Broken(Recording):
        def score(self, batch: Sequence[Candidates]) -> list[list[Score]]:
            raise RuntimeError("out of memory")

    monkeypatch.setattr(front, "load_model", lambda name: Broken() if name == "broken" else LengthModel())
    with open_warehouse():
        pass
    suite, data = load_suite("pairs"), str(write_pairs(tmp_path))
    with pytest.raises(RuntimeError, match="out of memory"):
        evaluate(["length", "broken"], suite=suite, data=data)
    [folder] = [path.parent for path in (home / "runs" / "eval").glob("*/result.json")]
    assert json.loads((folder / "result.json").read_text())["models"][0]["name"] == "length"
    evaluate("length", suite=suite, data=data)
    with open_warehouse(read_only=True) as connection:
        assert connection.execute("SELECT count(DISTINCT run_id), count(*) FROM eval_item").fetchall() == [(1, 40)]


def test_the_warehouse_keeps_what_was_said_in_each_order(home: Path, tmp_path: Path) -> None:
    model, items = Recording(kind="generative", pointwise=False), read_items("pairs", PAIRS, where="t")
    answers = answers_of(model, "pairs", items, tmp_path)
    with open_warehouse():
        pass  # an eval is stored where there is a warehouse
    assert store({"suite": "pairs", "suite_hash": "h"}, model.info, items, answers)
    with open_warehouse(read_only=True) as connection:
        rows = connection.execute("SELECT item, p_first, p_orders, unscored FROM eval_item ORDER BY item").fetchall()
    found = {item: (p_first, p_orders, unscored) for item, p_first, p_orders, unscored in rows}
    assert len(found) == len(items)
    assert found["a/1"] == (pytest.approx(0.75), pytest.approx([0.8, 0.7]), None)
    assert found["b/3"][2] == "cannot read the verdict"
