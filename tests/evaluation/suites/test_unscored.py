"""What could not be scored: beside the number over the scored stands the one over all, by the benchmark's own count.

The second implementations below follow what each benchmark's own script does with a verdict that cannot be read.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.front import evaluate
from evaluation.registry.leaderboard import leaderboards
from evaluation.registry.leaderboard import main as leaderboard
from evaluation.registry.promotion import judge
from evaluation.reports.suite import html, markdown
from evaluation.scoring import credit_table
from evaluation.scoring.paired import differences
from evaluation.suites.command import main as eval_suite
from evaluation.suites.items import Answer, Item
from evaluation.suites.journal import write_result
from evaluation.suites.load import Loaded
from evaluation.suites.results import evaluated, suite_facts
from evaluation.suites.suite import load_suite
from rmkit.errors import ConfigError
from rmkit.types import ModelInfo

NAN = math.nan


def written(folder: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path = folder / "stored.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def measured(suite: str, path: Path) -> dict[str, Any]:
    [model] = evaluate(path, suite=suite, allow_changed=True).as_json()["models"]
    made: dict[str, Any] = model["measures"] | model["cells"]
    return made


def counts(measure: Mapping[str, Any]) -> tuple[float, float, float, float]:
    whole = measure["of_all"]
    return measure["numerator"], measure["denominator"], whole["numerator"], whole["denominator"]


def test_rewardbench_has_an_unread_verdict_at_one_half(tmp_path: Path) -> None:
    verdicts = [[1, 1]] * 20 + [[None, None]] * 4 + [[0, 0]] * 3 + [[1, None]]
    rows = [{"id": i, "subset": "mt-bench-easy", "p": p} for i, p in enumerate(verdicts)]
    made = measured("rewardbench", written(tmp_path, rows))["mt-bench-easy"]
    # The readable order decides: 21 of 24. In one random order an unread one earns 1/2: 20 + 4 / 2 + (1 + 1/2) / 2.
    assert counts(made) == (21, 24, 22.75, 28)
    assert (made["unscored"], made["ties"]) == (4, 0)
    assert made["of_all"]["percent"] == pytest.approx(100 * 22.75 / 28)
    assert made["low"] > made["of_all"]["low"]  # another interval as well


def test_rewardbench_has_a_score_that_is_lost_as_not_right(tmp_path: Path) -> None:
    rows = [
        {"id": i, "subset": "mt-bench-easy", "scores_chosen": None if i < 3 else 1.0, "scores_rejected": 0.5}
        for i in range(28)
    ]
    assert counts(measured("rewardbench", written(tmp_path, rows))["mt-bench-easy"]) == (25, 25, 25, 28)


def test_judgebench_counts_as_its_own_script(tmp_path: Path) -> None:
    generator = random.Random(3)
    rows: list[dict[str, Any]] = []
    for index in range(350):
        decisions = generator.choices(["A>B", "B>A", "A=B", None], weights=[4, 4, 1, 3], k=2)
        judgments = [None if decision is None else {"judgment": {}, "decision": decision} for decision in decisions]
        source = generator.choice(["mmlu-pro-law", "livebench-reasoning", "livebench-math", "livecodebench"])
        label = generator.choice(["A>B", "B>A"])
        rows.append({"pair_id": f"u{index}", "source": source, "label": label, "judgments": judgments})
    flipped = {"A>B": "B>A", "B>A": "A>B"}
    right = scored = 0
    for row in rows:
        first, second = (one and one["decision"] for one in row["judgments"])
        seen = [first, flipped.get(second, second)]
        right += sum((d == row["label"]) - (d == flipped[row["label"]]) for d in seen) > 0
        scored += seen != [None, None]
    made = measured("judgebench", written(tmp_path, rows))["micro"]
    assert counts(made) == (right, scored, right, 350)
    assert made["unscored"] == 350 - scored > 10


def test_processbench_counts_as_its_own_script(tmp_path: Path) -> None:
    generator = random.Random(4)
    rows = []
    for index in range(120):
        label = generator.choice([-1, -1, 0, 1, 2])
        prediction = generator.choice([label, label, None, -1, 1])
        rows.append({"id": f"gsm8k-{index}", "label": label, "prediction": prediction})
    error, correct = (
        np.mean([row["prediction"] == row["label"] for row in rows if (row["label"] == -1) is whole])
        for whole in (False, True)
    )
    made = measured("processbench", written(tmp_path, rows))["gsm8k F1"]
    assert made["of_all"]["percent"] == pytest.approx(100 * 2 * error * correct / (error + correct))
    assert made["percent"] > made["of_all"]["percent"] + 5


def test_rmbench_counts_as_its_readme(tmp_path: Path) -> None:
    generator = np.random.default_rng(5)
    rows = []
    for index in range(129):
        scores = [None if generator.random() < 0.1 else float(generator.normal(0.4 * (i < 3))) for i in range(6)]
        rows.append({"id": index, "domain": "chat", "score_chosen": scores[:3], "score_rejected": scores[3:]})
    matrix = np.zeros((3, 3))
    for row in rows:
        chosen, rejected = (np.array(row[f"score_{side}"], dtype=float) for side in ("chosen", "rejected"))
        matrix += chosen[:, None] > rejected[None, :]  # false where either is NaN
    matrix /= len(rows)
    made = measured("rm-bench", written(tmp_path, rows))
    assert made["chat/hard"]["of_all"]["percent"] == pytest.approx(100 * np.triu(matrix, 1).sum() / 3)
    assert made["chat/easy"]["of_all"]["percent"] == pytest.approx(100 * np.tril(matrix, -1).sum() / 3)
    assert made["chat"]["percent"] > made["chat"]["of_all"]["percent"] + 5


def test_llmbar_averages_over_both_orders_and_has_no_winner_as_wrong(tmp_path: Path) -> None:
    verdicts = [[1, 1], [1, None], [None, 1], [None, None], [0, None], [1, 0]]
    rows = [{"id": i, "subset": "FairEval", "p": p} for i, p in enumerate(verdicts)]
    per_order = [sum(row[order] == 1 for row in verdicts) / len(verdicts) for order in (0, 1)]
    made = measured("faireval", written(tmp_path, rows))["overall"]
    assert made["of_all"]["percent"] == pytest.approx(100 * sum(per_order) / 2)
    assert counts(made) == (3.5, 5, 2.5, 6)


def test_rewardbench2_has_an_unread_choice_of_four_at_a_quarter_and_readable_ratings_decide() -> None:
    suite = load_suite("rewardbench2")
    items = [Item(f"Math/{i}", "Math", f"p{i}", {"num_correct": 1}) for i in range(5)]
    scores = [(NAN,) * 4, (7, NAN, 3, 7), (NAN, 5, 4, 3), (9, 1, 1, 1), (NAN, NAN, NAN, NAN)]
    answers = {item.id: Answer(item.id, one) for item, one in zip(items, scores, strict=True)}
    judged = credit_table(suite, items, answers, kind="generative")
    assert [credit.earned_of_all for credit in judged] == [0.25, 0.5, 0, None, 0.25]
    assert [credit.unscored for credit in judged] == [True, True, True, False, True]
    scorer = credit_table(suite, items, answers)  # no maximum is equal to NaN
    assert [credit.earned_of_all for credit in scorer] == [0, 0, 0, None, 0]


def test_a_tied_prompt_that_is_unscored_earns_nothing_of_all() -> None:
    suite = load_suite("rewardbench2")
    items = [
        Item(f"Ties/{kind}:{n}", "Ties", f"Ties/{n}", {"num_correct": c})
        for n in "12"
        for kind, c in (("tied", 2), ("ref", 1))
    ]
    answers = {
        item.id: Answer(item.id, (5.0, 4.0, 1.0)[: 2 + (":" in item.id and "tied" in item.id)]) for item in items
    }
    answers["Ties/ref:2"] = Answer("Ties/ref:2", (NAN, 1.0), unscored="too long")
    made = evaluated(suite, items, answers, ModelInfo("m", "generative", "logit", True, "f"), resamples=0).as_json()
    assert counts(made["cells"]["Ties/ref"]) == (1, 1, 1, 2)
    assert counts(made["cells"]["Ties/preferred"]) == (1, 1, 1, 2)
    assert made["measures"]["Ties score"]["unscored"] == 4


def test_every_vote_counts_where_an_unscored_pair_was_voted_on() -> None:
    items = [Item(f"x/{i}", "x", f"p{i}", {"votes": votes}) for i, votes in enumerate((["a", "a", "b"], ["a", "tie"]))]
    answers = {"x/0": Answer("x/0", (2.0, 1.0)), "x/1": Answer("x/1", p=(NAN, NAN), unscored="no verdict")}
    made = evaluated(load_suite("annotators"), items, answers, ModelInfo("m", "explicit", "logit", True, "f")).as_json()
    assert counts(made["measures"]["model with people"]) == (2, 3, 2, 5)
    assert counts(made["measures"]["people with each other"]) == (1, 4, 1, 4)  # nothing of the model in it
    one = evaluated(
        load_suite("annotators"),
        items,
        answers | {"x/1": Answer("x/1", p=(NAN, 0.9))},
        ModelInfo("m", "explicit", "logit", True, "f"),
    ).as_json()
    assert counts(one["measures"]["model with people"]) == (3, 5, 3, 5)
    assert one["one_order"] == 1


def test_the_screen_and_the_reports_say_both_numbers_and_whose_count_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    verdicts = [[1, 1]] * 40 + [[None, None]] * 20 + [[0, None]]
    path = written(tmp_path, [{"id": i, "subset": "FairEval", "p": p} for i, p in enumerate(verdicts)])
    argv = ["--suite", "faireval", "--from-scores", str(path)]
    assert eval_suite(argv) == 0
    text = capsys.readouterr().out
    [line] = [line for line in text.splitlines() if line.startswith("  overall")]
    assert line.split() == [
        "overall",
        "97.56",
        *line.split()[2:4],
        "40",
        "/",
        "41",
        "0",
        "20",
        "41",
        "65.57",
        "40",
        "/",
        "61",
    ]
    assert "unscored: 20 items, no verdict could be read" in text
    assert "one order unread: 1 pairs are judged by the other order alone" in text
    assert "of all: every item counts, an unscored one earns what a draw among its candidates would" in text
    assert "LLMBar: LLMEvaluator/evaluate.py" in text
    result = evaluate(path, suite="faireval").as_json()
    assert "| overall | 97.56 |" in markdown(result)
    assert "| 65.57 | 40 / 61 |" in markdown(result)
    assert '<td class="n">65.57</td><td class="n">40 / 61</td>' in html(result)


def test_a_suite_without_a_benchmark_behind_it_says_that_the_count_is_ours(tmp_path: Path) -> None:
    rows = [{"id": i, "subset": "mine", "scores_chosen": None if i else 1.0, "scores_rejected": 0.0} for i in range(4)]
    result = evaluate(written(tmp_path, rows), suite="pairs").as_json()
    assert counts(result["models"][0]["measures"]["overall"]) == (1, 1, 1, 4)
    assert "rmkit's own count, the benchmark states none" in markdown(result)


def test_chance_needs_candidates(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text(
        'name = "s"\ntitle = "s"\nrule = "first_error"\nform = "steps"\nopen = true\nunscored = "chance"\n'
        '[[measure]]\nname = "all"\npool = ["*"]\n'
    )
    with pytest.raises(ConfigError, match="'chance' needs candidates to draw from; rule 'first_error' has none"):
        load_suite(str(path))


def finished(home: Path, name: str, answers: Sequence[float | None]) -> None:
    """A stored result on pairs, one prompt each: the margin of every pair, None where there is no score."""
    suite = load_suite("pairs")
    items = [Item(f"all/{n}", "all", f"all/{n}") for n in range(len(answers))]
    given = {
        item.id: Answer(
            item.id, (NAN if margin is None else margin, 0.0), unscored=None if margin is not None else "lost"
        )
        for item, margin in zip(items, answers, strict=True)
    }
    facts = suite_facts(suite, Loaded(tuple(items), "hh@v2:test", {"all": "d"}, (), ()), limit=None)
    made = evaluated(suite, items, given, ModelInfo(name, "explicit", "logit", True, name), resamples=20)
    folder = home / "runs" / "eval" / name
    folder.mkdir(parents=True)
    write_result(folder, facts | {"command": "rmkit eval", "models": [made.as_json()]}, made.credits)


def test_the_gate_does_not_let_a_model_through_that_scored_one_of_61(home: Path) -> None:
    finished(home, "current", [1.0] * 40 + [-1.0] * 21)
    finished(home, "silent", [None] * 60 + [-1.0])  # its one answer is as wrong as the other's
    refused = judge("silent", "current")
    assert not refused.passed
    assert "both models scored 1 of its 61 prompts" in refused.why
    assert "at least 30 are needed (--min-prompts)" in refused.why
    [one] = refused.comparisons
    assert one.whole.difference == pytest.approx(-100 * 40 / 61)
    assert (one.scored.difference, one.scored.n, one.scored.unscored_first) == (0, 1, 60)
    again = judge("silent", "current", min_prompts=1)
    assert not again.passed
    assert "worse on pairs: overall -65.57 points" in again.why
    assert "(60 of its answers, 0 of the current one's) counted as not right; +0.00" in again.why


def test_the_gate_says_both_numbers_where_it_passes(home: Path) -> None:
    finished(home, "current", [1.0] * 40 + [-1.0] * 21)
    finished(home, "new", [1.0] * 38 + [None] * 2 + [1.0] * 4 + [-1.0] * 17)
    passed = judge("new", "current")
    assert passed.passed
    assert "pairs +3.28 points" in passed.why  # 42 of 61 against 40 of 61
    assert "(2 of its answers, 0 of the current one's) counted as not right; +6.78" in passed.why  # 4 of 59 more
    assert "on the 59 prompts that both scored" in passed.why


def test_the_gate_refuses_models_without_one_shared_scored_prompt(home: Path) -> None:
    finished(home, "current", [None] * 30 + [1.0] * 10)
    finished(home, "new", [1.0] * 30 + [None] * 10)
    assert "both models scored 0 of its 40 prompts" in judge("new", "current").why


def test_the_leaderboard_stands_a_result_with_nothing_scored_and_one_right_answer_does_not_lead(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished(home, "good", [1.0] * 30 + [-1.0] * 10)
    finished(home, "silent", [None] * 40)
    finished(home, "lucky", [1.0] + [None] * 39)
    [board] = leaderboards(home / "runs" / "eval")
    assert [row["name"] for row in board["models"]] == ["good", "lucky", "silent"]
    assert [row["measures"]["overall"]["percent"] for row in board["models"]] == [75, 100, None]
    assert [row["measures"]["overall"]["of_all"]["percent"] for row in board["models"]] == [75, 2.5, 0]
    assert [row["level_with_best"] for row in board["models"]] == [True, False, False]
    assert leaderboard([]) == 0
    text = capsys.readouterr().out
    assert "| 2 | lucky | 100.0 | [100.0, 100.0] | 1 / 1 | 0 | 39 | 2.5 |" in text
    assert "| 3 | silent | - | - | 0 / 0 | 0 | 40 | 0.0 |" in text


def test_models_that_share_no_scored_item_have_no_difference_and_say_how_much_is_unscored() -> None:
    suite = load_suite("pairs")
    items = [Item(f"all/{n}", "all", f"all/{n}") for n in range(4)]
    tables = [
        credit_table(
            suite, items, {i.id: Answer(i.id, (NAN if n // 2 == lost else 1.0, 0.0)) for n, i in enumerate(items)}
        )
        for lost in (0, 1)
    ]
    one = {one.measure: one for one in differences(suite, *tables)}["overall"]
    assert math.isnan(one.difference)
    assert (one.n, one.unscored_first, one.unscored_second) == (0, 2, 2)
