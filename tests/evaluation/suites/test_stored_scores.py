"""Stored results of reward-bench, RM-Bench and JudgeBench give the totals that their own scripts give."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.front import evaluate
from evaluation.suites.command import main
from evaluation.suites.suite import Suite, load_suite
from rmkit import plugins
from rmkit.errors import DataError, UsageError


def measures(suite: str, path: Path, *, allow_changed: bool = False) -> dict[str, Any]:
    result = evaluate(path, suite=suite, allow_changed=allow_changed).as_json()
    found: dict[str, Any] = result["models"][0]["measures"]
    return found | result["models"][0]["cells"]


def stored_rewardbench(seed: int = 0) -> dict[str, Any]:
    """What run_rm.py saves: columns, with the scores of some models wrapped in lists of one."""
    generator = np.random.default_rng(seed)
    subsets = [s for s in load_suite("rewardbench").subsets if not s.optional]
    names = [s.name for s in subsets for _ in range(s.items or 0)]
    chosen, rejected = generator.normal(0.7, 1, len(names)), generator.normal(0, 1, len(names))
    chosen[::50] = rejected[::50]  # ties
    return {
        "model": "someone/reward-8b",
        "model_type": "Seq. Classifier",
        "chat_template": "tokenizer",
        "id": list(range(len(names))),
        "subset": names,
        "scores_chosen": [[value] for value in chosen.tolist()],
        "scores_rejected": rejected.tolist(),
        "results": (chosen > rejected).astype(int).tolist(),
    }


def test_rewardbench_columns_reproduce_the_sections(tmp_path: Path) -> None:
    stored = stored_rewardbench()
    path = tmp_path / "scores.json"
    path.write_text(json.dumps(stored, indent=4))
    made = measures("rewardbench", path)
    subset, right = np.array(stored["subset"]), np.array(stored["results"])
    counts = {s.name: s.items for s in load_suite("rewardbench").subsets} | {"math-prm": 984}
    reasoning = ["math-prm", *(f"hep-{language}" for language in ("cpp", "go", "java", "js", "python", "rust"))]
    expected = np.average([right[subset == s].mean() for s in reasoning], weights=[counts[s] for s in reasoning])
    assert made["Reasoning"]["percent"] == pytest.approx(100 * expected)
    assert made["hep-go"]["numerator"] == right[subset == "hep-go"].sum()
    assert sum(made[s.name]["ties"] for s in load_suite("rewardbench").subsets if not s.optional) == 60


def test_rewardbench_summary_gives_the_same_totals_as_the_scores(tmp_path: Path) -> None:
    stored = stored_rewardbench(seed=1)
    subset, right = np.array(stored["subset"]), np.array(stored["results"])
    full, short = tmp_path / "scores.json", tmp_path / "summary.json"
    full.write_text(json.dumps(stored))
    short.write_text(json.dumps({"model": "m"} | {s: right[subset == s].mean() for s in set(stored["subset"])}))
    from_full, from_short = measures("rewardbench", full), measures("rewardbench", short)
    for name in ("Chat", "Chat Hard", "Safety", "Reasoning", "overall (leaderboard: four sections)"):
        assert from_short[name]["percent"] == pytest.approx(from_full[name]["percent"], abs=1e-9)


def test_rewardbench_summary_of_a_judge_keeps_half_points_and_refuses_the_impossible(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    path.write_text(json.dumps({"mt-bench-easy": 26.5 / 28}))
    made = measures("rewardbench", path)["mt-bench-easy"]
    assert (made["numerator"], made["denominator"], made["ties"]) == (26.5, 28, 1)
    path.write_text(json.dumps({"mt-bench-easy": 0.9}))
    with pytest.raises(DataError, match=r"0.9 is not a number right of 28"):
        measures("rewardbench", path)


def test_custom_classifiers_without_scores_count_by_their_results(tmp_path: Path) -> None:
    rows = [
        {"id": i, "subset": "mt-bench-easy", "scores_chosen": None, "scores_rejected": None, "results": int(i < 20)}
        for i in range(28)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert measures("rewardbench", path)["mt-bench-easy"]["numerator"] == 20


def test_lost_scores_are_unscored_not_wrong(tmp_path: Path) -> None:
    rows = [
        {"id": i, "subset": "mt-bench-easy", "scores_chosen": None if i == 0 else 1.0, "scores_rejected": 0.5}
        for i in range(28)
    ]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows))
    made = measures("rewardbench", path)["mt-bench-easy"]
    assert (made["numerator"], made["denominator"], made["unscored"]) == (27, 27, 1)


def test_rewardbench2_lists_and_ties(tmp_path: Path) -> None:
    rows = [
        {"id": "0", "subset": "Math", "scores": [[3.0], [1.0], [3.0], [0.0]], "num_correct": 1},
        {"id": "1", "subset": "Math", "scores": [3.0, 1.0, 2.0, 0.0], "num_correct": 1},
        {"id": "tied:4", "subset": "ties", "scores": [6, 5, 1], "num_correct": 2},
        {"id": "ref:4", "subset": "ties", "scores": [5, 1], "num_correct": 1},
    ]
    path = tmp_path / "rb2.json"
    path.write_text(json.dumps(rows))
    with pytest.raises(DataError, match="Math has 2 items, expected 183"):
        measures("rewardbench2", path)
    made = measures("rewardbench2", path, allow_changed=True)
    assert made["Math"]["numerator"] == 1.5
    assert made["Ties score"]["percent"] == pytest.approx(100 * (1 + 0.01 * math.tanh(3)))
    assert made["overall"]["percent"] is None
    assert set(made["overall"]["missing"]) == {"Factuality", "Precise IF", "Safety", "Focus"}


def test_rmbench_result_file_gives_what_its_readme_computes(tmp_path: Path) -> None:
    generator = np.random.default_rng(5)
    rows = [
        {
            "id": index,
            "domain": domain,
            "prompt": f"p{index}",
            "score_chosen": [[v] for v in generator.normal(0.3, 1, 3).tolist()],
            "score_rejected": generator.normal(0, 1, 3).tolist(),
        }
        for index, domain in enumerate(["chat"] * 129 + ["math"] * 529)
    ]
    path = tmp_path / "result.json"
    path.write_text(json.dumps(rows))
    made = measures("rm-bench", path)
    for domain in ("chat", "math"):
        matrix = np.zeros((3, 3))
        part = [row for row in rows if row["domain"] == domain]
        for row in part:
            matrix += np.array(row["score_chosen"]).reshape(3, 1) > np.array(row["score_rejected"])[None, :]
        matrix /= len(part)
        assert made[f"{domain}/hard"]["percent"] == pytest.approx(100 * np.triu(matrix, 1).sum() / 3)
        assert made[f"{domain}/normal"]["percent"] == pytest.approx(100 * np.diag(matrix).mean())
        assert made[f"{domain}/easy"]["percent"] == pytest.approx(100 * np.tril(matrix, -1).sum() / 3)
    assert made["overall"]["percent"] is None


def judgment(first: float, second: float) -> dict[str, Any]:
    decision = "A>B" if first > second else "B>A"
    return {"judgment": {"judge_model": "m", "scores": [first, second]}, "decision": decision}


def judge_row(index: int, label: str, judgments: list[Any], source: str = "mmlu-pro-law") -> dict[str, Any]:
    row = {"pair_id": f"u{index}", "source": source, "question": f"q{index}", "label": label}
    return row | {"judge_name": "reward_model", "judgments": judgments}


def test_judgebench_reward_model_file(tmp_path: Path) -> None:
    rows = [
        judge_row(0, "A>B", [judgment(-1.43, -2.07), judgment(-2.07, -1.43)]),
        judge_row(1, "A>B", [judgment(-1.57, 2.03), judgment(2.03, -1.57)]),
        judge_row(2, "B>A", [judgment(0.1, 0.9), judgment(0.9, 0.1)], source="livecodebench"),
        judge_row(3, "B>A", [judgment(0.5, 0.5), judgment(0.5, 0.5)], source="livebench-math"),
    ]
    path = tmp_path / "judgebench.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = measures("judgebench", path, allow_changed=True)
    assert (made["knowledge"]["numerator"], made["knowledge"]["denominator"]) == (1, 2)
    assert made["coding"]["percent"] == 100
    assert (made["math"]["numerator"], made["math"]["ties"]) == (0, 1)


@pytest.mark.parametrize(
    ("label", "first", "second", "right"),
    [
        ("A>B", "A>B", "B>A", 1),  # consistent: the second was shown swapped
        ("A>B", "A>B", "A>B", 0),  # always the first one shown
        ("B>A", "B>A", "A=B", 1),
        ("B>A", "A=B", "B>A", 0),
        ("A>B", None, "B>A", 1),
    ],
)
def test_judgebench_judge_file_in_both_orders(
    tmp_path: Path, label: str, first: str | None, second: str | None, right: int
) -> None:
    judgments = [{"judgment": {"response": "..."}, "decision": first}, {"judgment": {}, "decision": second}]
    path = tmp_path / "judge.jsonl"
    path.write_text(json.dumps(judge_row(0, label, judgments)) + "\n")
    assert measures("judgebench", path, allow_changed=True)["knowledge"]["numerator"] == right


def test_judgebench_without_a_verdict_is_unscored(tmp_path: Path) -> None:
    path = tmp_path / "judge.jsonl"
    path.write_text(json.dumps(judge_row(0, "A>B", [None, {"judgment": {}, "decision": None}])) + "\n")
    made = measures("judgebench", path, allow_changed=True)["knowledge"]
    assert (made["denominator"], made["unscored"]) == (0, 1)


def test_processbench_predictions(tmp_path: Path) -> None:
    rows = [
        {"id": f"gsm8k-{index}", "problem": f"p{index}", "label": label, "prediction": prediction}
        for index, (label, prediction) in enumerate([(1, 1), (2, 1), (-1, -1), (-1, -1), (-1, 0)])
    ]
    path = tmp_path / "gsm8k.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = measures("processbench", path, allow_changed=True)
    assert made["gsm8k F1"]["percent"] == pytest.approx(100 * 2 * (1 / 2) * (2 / 3) / (1 / 2 + 2 / 3))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"item": 1}\n', "row 1: not stored scores for suite judgebench .*KeyError: 'label'.*its fields: item"),
        ("not json\n", "line 1: not JSON"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        measures("judgebench", path)


def test_repeated_items_are_refused(tmp_path: Path) -> None:
    row = judge_row(0, "A>B", [judgment(1, 0)])
    path = tmp_path / "x.jsonl"
    path.write_text(2 * (json.dumps(row) + "\n"))
    with pytest.raises(DataError, match="knowledge/u0 appears twice with the same scores"):
        measures("judgebench", path)
    path.write_text(json.dumps(row) + "\n" + json.dumps(judge_row(0, "B>A", [judgment(1, 0)])) + "\n")
    assert measures("judgebench", path, allow_changed=True)["knowledge"]["denominator"] == 2  # same id, another pair


def test_command_prints_percent_with_both_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [judge_row(i, "A>B", [judgment(float(i < 208), 0.5)]) for i in range(350)]
    path = tmp_path / "grm.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["--suite", "judgebench", "--from-scores", str(path), "--allow-changed", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["models"][0]["cells"]["knowledge"] | {"low": 0, "high": 0} == {
        "name": "knowledge",
        "percent": pytest.approx(59.43, abs=0.005),
        "numerator": 208,
        "denominator": 350,
        "n": 350,
        "ties": 0,
        "unscored": 0,
        "clusters": 350,
        "low": 0,
        "high": 0,
        "of_all": {
            "percent": pytest.approx(59.43, abs=0.005),
            "numerator": 208,
            "denominator": 350,
            "low": pytest.approx(54.3, abs=1),
            "high": pytest.approx(64.6, abs=1),
        },
    }


def test_stored_scores_and_models_are_not_mixed(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(judge_row(0, "A>B", [judgment(1, 0)])) + "\n")
    with pytest.raises(UsageError, match="--from-scores takes no model"):
        main(["length", "--suite", "judgebench", "--from-scores", str(path)])
    with pytest.raises(DataError, match="no such file"):
        main(["--suite", "judgebench", "--from-scores", str(tmp_path / "absent.json")])
    with pytest.raises(DataError, match=r"row 1: not stored scores for suite nway .*KeyError: 'responses'"):
        main(["--suite", "nway", "--from-scores", str(path)])
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="a folder without files of scores"):
        main(["--suite", "judgebench", "--from-scores", str(empty)])


def test_rmbench_score_files_of_one_domain_each_are_one_run(tmp_path: Path) -> None:
    """What scripts/run_rm.py of RM-Bench writes for chat_filtered.json and the others: the domain is in the name alone,
    `subset` is where the prompt is from."""
    generator = np.random.default_rng(7)
    right = {}
    for domain, n, source in (
        ("chat", 129, "alpacaeval"),
        ("safety-refuse", 284, "refusals"),
        ("math", 529, "math-prm"),
    ):
        rows = [
            {
                "id": i,
                "subset": source,
                "score_chosen": generator.normal(0.5, 1, 3).tolist(),
                "score_rejected": [0.0] * 3,
            }
            for i in range(n)
        ]
        right[domain] = sum(score > 0 for row in rows for score in row["score_chosen"])
        (tmp_path / f"{domain}_filtered_Skywork-8B_REWORD_MODEL_20250101_000000.json").write_text(
            json.dumps(rows, indent=4)
        )
    made = measures("rm-bench", tmp_path)
    assert {domain: made[f"{domain}/normal"]["numerator"] for domain in right} == right
    assert made["safety-refuse/normal"]["denominator"] == 3 * 284
    assert made["overall"]["percent"] is None  # code and safety-response are not there
    [alone] = [path for path in tmp_path.iterdir() if path.name.startswith("chat")]
    assert measures("rm-bench", alone)["chat"]["percent"] == made["chat"]["percent"]


def test_two_folders_of_score_files_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from evaluation.suites.compare_command import main as compare

    for name, margin in (("a", 1.0), ("b", -1.0)):
        (tmp_path / name).mkdir()
        rows = [{"id": i, "score_chosen": [margin] * 3, "score_rejected": [0.0] * 3} for i in range(129)]
        (tmp_path / name / "chat_filtered_m.json").write_text(json.dumps(rows))
    assert compare([str(tmp_path / "a"), str(tmp_path / "b"), "--suite", "rm-bench"]) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  chat ")]
    assert line.split()[1:4] == ["100.00", "0.00", "+100.00"]


def rewardbench2_rows(generator: np.random.Generator) -> list[dict[str, Any]]:
    """What run_generative_v2.py saves: results where it asked for one of four, scores for Ties."""
    rows: list[dict[str, Any]] = []
    for subset in load_suite("rewardbench2").subsets:
        for i in range(subset.items or 0):
            if subset.name == "Ties":
                kind, correct = ("tied", 2) if i % 2 else ("ref", 1)
                scores = [*generator.integers(5, 11, correct).tolist(), *generator.integers(1, 8, 2).tolist()]
                rows.append({"id": f"{kind}:{i // 2}", "subset": "Ties", "scores": scores, "num_correct": correct})
            else:
                result = float(generator.choice([1.0, 0.0, 0.25, 0.5]))
                rows.append({"id": str(i), "subset": subset.name, "scores": None, "num_correct": 1, "results": result})
    return rows


def test_rewardbench2_rows_with_results_alone_and_the_summary_of_them(tmp_path: Path) -> None:
    rows = rewardbench2_rows(np.random.default_rng(11))
    full, short = tmp_path / "scores.json", tmp_path / "summary.json"
    columns = {key: [row.get(key) for row in rows] for key in ("id", "subset", "scores", "num_correct", "results")}
    full.write_text(json.dumps({"model": "openai/gpt-4.1", "model_type": "Generative RM", **columns}))
    made = measures("rewardbench2", full)
    expected = {}
    for subset in ("Factuality", "Precise IF", "Math", "Safety", "Focus"):
        results = [row["results"] for row in rows if row["subset"] == subset]
        expected[subset] = sum(results) / len(results)
        assert made[subset]["percent"] == pytest.approx(100 * expected[subset])
    ties = made["Ties score"]["percent"] / 100
    short.write_text(json.dumps({"model": "openai/gpt-4.1", "chat_template": None, **expected, "Ties": ties}))
    summary = measures("rewardbench2", short)
    assert summary["overall"]["percent"] == pytest.approx(made["overall"]["percent"])
    assert summary["overall"]["percent"] == pytest.approx(100 * (sum(expected.values()) + ties) / 6)
    assert (summary["Ties score"]["denominator"], summary["Ties score"]["low"]) == (102, None)  # no spread is known
    assert summary["overall"]["low"] is None
    assert summary["Math"]["low"] is not None


def test_rewardbench2_refuses_what_it_cannot_be(tmp_path: Path) -> None:
    path = tmp_path / "rb2.json"
    path.write_text(json.dumps([{"id": "tied:1", "subset": "Ties", "scores": None, "num_correct": 2, "results": 1.0}]))
    with pytest.raises(DataError, match=r"prompts of Ties need their scores, `results` alone is not enough"):
        measures("rewardbench2", path, allow_changed=True)
    path.write_text(json.dumps([{"id": "1", "subset": "Math", "results": 3}]))
    with pytest.raises(DataError, match="expected one or two numbers from 0 to 1"):
        measures("rewardbench2", path, allow_changed=True)
    path.write_text(json.dumps({"Math": 0.5001}))
    with pytest.raises(DataError, match=r"Math: 0\.5001 is not a number right of 183 prompts"):
        measures("rewardbench2", path, allow_changed=True)


@pytest.mark.parametrize("indent", [None, 4])
def test_json_lines_named_json_and_records_one_after_the_other(tmp_path: Path, indent: int | None) -> None:
    """reward-bench's save_to_hub writes a list as indented objects that follow each other."""
    rows = [
        {"id": i, "subset": "mt-bench-easy", "scores_chosen": 1.0 * (i > 3), "scores_rejected": 0.5} for i in range(28)
    ]
    path = tmp_path / "rows.json"
    path.write_text("\ufeff" + "".join(json.dumps(row, indent=indent) + "\n" for row in rows))
    assert measures("rewardbench", path)["mt-bench-easy"]["numerator"] == 24
    path.write_text(path.read_text() + "{")
    with pytest.raises(DataError, match=r"rows\.json, line \d+: not JSON"):
        measures("rewardbench", path)


def test_stored_scores_of_rankings_are_what_the_scorer_would_get(tmp_path: Path) -> None:
    rows = [
        {"id": "1", "subset": "a", "responses": [{"rank": 0}, {"rank": 1}, {"rank": 1}], "scores": [0.1, 0.7, 0.0]},
        {"id": "2", "subset": "a", "responses": [{"text": "x", "score": 4}, {"score": 2}], "scores": [[1.5], 0.5]},
        {"id": "3", "subset": "b", "responses": [{"correct": True}, {"correct": False}], "scores": [None, 0.5]},
    ]
    path = tmp_path / "nway.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = measures("nway", path)
    assert (made["pairs"]["numerator"], made["pairs"]["denominator"], made["pairs"]["unscored"]) == (1.5, 2, 1)
    assert (made["best of N"]["numerator"], made["best of N"]["of_all"]["denominator"]) == (1, 3)
    path.write_text(json.dumps(rows[0] | {"scores": [1, 2]}) + "\n")
    with pytest.raises(DataError, match="3 responses and 2 scores"):
        measures("nway", path)


def test_stored_scores_and_verdicts_beside_the_votes_of_people(tmp_path: Path) -> None:
    def votes(*given: str) -> list[dict[str, str]]:
        return [{"annotator": f"w{i}", "preference": vote} for i, vote in enumerate(given)]

    rows = [
        {"id": "1", "labels": votes("a", "a", "b"), "scores": [2.0, 1.0]},
        {"id": "2", "labels": votes("b", "tie"), "p": [0.4, 0.1]},
        {"id": "3", "labels": votes("b"), "p": [None, None]},
    ]
    path = tmp_path / "votes.json"
    path.write_text(json.dumps(rows))
    made = measures("annotators", path)
    assert (made["model with people"]["numerator"], made["model with people"]["denominator"]) == (3, 5)
    assert made["model with people"]["of_all"]["denominator"] == 6
    assert (made["people with each other"]["numerator"], made["people with each other"]["denominator"]) == (1, 4)


PAGE = (Path(__file__).parents[3] / "docs" / "evaluation.md").read_text()
EXAMPLES = re.findall(r"read by `--suite ([\w-]+)`(?:(?!```).)*?```json\n(.*?)```", PAGE, re.DOTALL)


def test_the_page_shows_a_stored_form_for_every_rule() -> None:
    rules = {load_suite(suite).rule for suite, _ in EXAMPLES}
    # A rule of one subset, and rules of which no stored form is known.
    others = {"ties", "absolute", "both_orders", "criteria_met", "median_vote", "step_f1"}
    assert rules == set(plugins.names("rules")) - others
    assert len(EXAMPLES) == PAGE.count("```json")


@pytest.mark.parametrize(("suite", "text"), EXAMPLES)
def test_every_stored_form_of_the_page_is_read(tmp_path: Path, suite: str, text: str) -> None:
    path = tmp_path / "stored.json"
    path.write_text(text)
    if "mt-bench-easy" in text or "0.83" in text:  # a summary stands for whole subsets
        assert evaluate(path, suite=suite).as_json()["models"][0]["items"] == sum(
            subset.items or 0 for subset in load_suite(suite).subsets if f'"{subset.name}"' in text
        )
        return
    result = evaluate(path, suite=suite, allow_changed=True).as_json()["models"][0]
    rows = [value for line in text.splitlines() for value in [json.loads(line)]]
    assert result["items"] == (2 if "id" in rows[0] and isinstance(rows[0]["id"], list) else len(rows))


def test_the_suite_of_the_page_is_a_suite_that_names_every_key(tmp_path: Path) -> None:
    [text] = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    path = tmp_path / "mine.toml"
    path.write_text(text)
    suite = load_suite(str(path))
    assert (suite.headline.name, suite.subsets[1].optional, suite.judge_unscored) == ("weighted", True, "chance")
    keys = set(Suite.__dataclass_fields__) - {"subsets", "measures", "source"}
    assert keys - set(suite.source) == {"hub_split", "hub_config"}  # named in a comment
    assert {"hub_split", "hub_config"} <= set(re.findall(r"\w+", text))
    assert all(f"`{form}`" in PAGE for form in plugins.names("forms"))
    assert all(f"`{rule}`" in PAGE for rule in plugins.names("rules"))
