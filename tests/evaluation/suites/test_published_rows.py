"""Benchmarks in their authors' own rows: each suite on a small file, its numbers worked out by hand."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import rmkit
from evaluation.scoring.both_orders import credits as in_both_orders
from evaluation.scoring.median_vote import agreement
from evaluation.suites.items import Answer, Item
from evaluation.suites.load import load_items
from evaluation.suites.suite import load_suite
from rmkit.cli.main import call
from rmkit.errors import DataError, UsageError
from rmkit.types import Candidates, Comparison, ModelInfo, Scale, Score, compare_by_score

DATA = Path(os.environ.get("RMKIT_TEST_DATA", Path(__file__).parents[4] / "shared" / "data"))
Rows = list[dict[str, Any]]


def write(path: Path, rows: Rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.suffix == ".jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) if lines else json.dumps(rows))
    return path


def percents(suite: str, data: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, float | None]:
    """What `rmkit eval length --suite SUITE` says: the longer reply is the better one."""
    capsys.readouterr()
    assert call("eval", ["length", "--suite", suite, "--data", str(data), "--json"]) == 0
    model = json.loads(capsys.readouterr().out)["models"][0]
    return {name: one["percent"] for name, one in (model["measures"] | model["cells"]).items()}


def rmb_pair(number: int, chosen: str, rejected: str, path: str) -> dict[str, Any]:
    turns = [{"role": "user", "content": f"Question {number}", "language": "English"}]
    answers = ({"llm_name": name, "answer": text} for name, text in (("m", chosen), ("n", rejected)))
    return dict(zip(("chosen", "reject"), answers, strict=True)) | {
        "pair_uid": str(number),
        "conversation_input": turns,
        "category_path": f"Pairwise_set/{path}",
    }


def rmb_list(number: int, best: str, others: Sequence[str], path: str) -> dict[str, Any]:
    turns = [{"role": "user", "content": f"Question {number}", "language": "English"}]
    losers = [{"llm_name": f"n{at}", "answer": text} for at, text in enumerate(others)]
    best_one = {"llm_name": "m", "answer": best}
    row = {"bon_uid": str(number), "conversation_input": turns, "bon_best": best_one, "loser_list": losers}
    return row | {"category_path": f"BoN_set/{path}"}


def test_rmb_is_read_from_its_folder_of_scenarios(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs, lists = tmp_path / "Pairwise_set", tmp_path / "BoN_set"
    chat = [rmb_pair(1, "longer", "short", "Helpfulness/Chat/Talk"), rmb_pair(2, "a", "bbb", "Helpfulness/Chat/Talk")]
    write(pairs / "Helpfulness" / "Chat" / "Talk.json", chat)
    write(pairs / "Helpfulness" / "Code" / "Fix.json", [rmb_pair(3, "longer", "no", "Helpfulness/Code/Fix")])
    safe = [rmb_pair(4, "same", "size", "Harmlessness/S1"), rmb_pair(5, "no, never", "yes", "Harmlessness/S1")]
    write(pairs / "Harmlessness" / "S1.json", safe)
    talk = [
        rmb_list(6, "the longest", ["b", "cc"], "Helpfulness/Chat/Talk"),
        rmb_list(7, "equal", ["also5", "no"], "Helpfulness/Chat/Talk"),
    ]
    write(lists / "Helpfulness" / "Chat" / "Talk.json", talk)
    write(lists / "Harmlessness" / "S1.json", [rmb_list(8, "no", ["yes!", "y"], "Harmlessness/S1")])
    values = percents("rmb", tmp_path, capsys)
    assert values["Pairwise_set/Helpfulness/Chat/Talk"] == 50
    assert values["helpfulness, pairs"] == pytest.approx(200 / 3)
    assert values["harmlessness, pairs"] == 50  # a tie is not right
    assert values["helpfulness, best of N"] == 75  # alone at the top, and one of two there
    assert values["harmlessness, best of N"] == 0
    assert values["overall"] == pytest.approx((200 / 3 + 50 + 75 + 0) / 4)


def test_llmbar_takes_its_subsets_from_its_folders(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def rows(*right: bool) -> Rows:
        """Label 1 and 2 in turn; the longer output is the right one where `right` says so."""
        made = []
        for number, is_right in enumerate(right):
            label = 1 + number % 2
            better, worse = ("long one", "no") if is_right else ("no", "long one")
            outputs = (better, worse) if label == 1 else (worse, better)
            made.append({"input": f"Do {number}", "output_1": outputs[0], "output_2": outputs[1], "label": label})
        return made

    folder = tmp_path / "LLMBar"
    write(folder / "Natural" / "dataset.json", rows(True, False))
    for name, right in {
        "Neighbor": (True, False),
        "GPTInst": (True,),
        "GPTOut": (False,),
        "Manual": (False, True, False),
    }.items():
        write(folder / "Adversarial" / name / "dataset.json", rows(*right))
    values = percents("llmbar", tmp_path, capsys)
    assert values["Natural"] == 50
    assert values["adversarial"] == pytest.approx((50 + 100 + 0 + 100 / 3) / 4)
    assert percents("llmbar", folder, capsys) == values
    assert percents("llmbar", folder / "Natural" / "dataset.json", capsys)["all"] == 50


def test_auto_j_agrees_in_both_orders_or_not_at_all(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [("long one", "no", 0), ("long one", "no", 1), ("same", "size", 2), ("long one", "no", 2), ("no", "yes", 1)]
    rows = [
        {"scenario": "chat", "prompt": f"Q{n}", "response 1": a, "response 2": b, "label": label}
        for n, (a, b, label) in enumerate(texts)
    ]
    values = percents("auto-j", write(tmp_path / "testdata_pairwise.jsonl", rows), capsys)
    assert values["agreement"] == 60
    assert values["decided"] == pytest.approx(200 / 3)
    assert values["consistency"] is None  # a model that scores plays one game

    def judged(gold: str, *p: float) -> list[float | None]:
        earned = in_both_orders(Item("i", "s", "c", {"votes": [gold]}), Answer("i", p=p))
        by_part = {credit.cell: None if credit.unscored else credit.earned for credit in earned}
        return [by_part.get(f"s/{part}") for part in ("agreement", "consistency", "decided")]

    nan = math.nan
    assert judged("a", 0.9, 0.6) == [1, 1, 1]
    assert judged("a", 0.9, 0.2) == [0, 0, 0]
    assert judged("b", 0.4, 0.2) == [1, 1, 1]
    assert judged("tie", 0.9, 0.2) == [0, 0, None]  # it contradicts itself: no tie
    assert judged("tie", 0.5, 0.5) == [1, 1, None]
    assert judged("a", 0.9, nan) == [0, 0, 0]
    assert judged("a", nan, nan) == [None, None, None]


def test_alpacaeval_holds_a_choice_against_the_median_of_the_votes(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    votes = {"one": [1, 1, 2, 2], "two": [1, 1, 1, 2], "three": [1, 1.5, 2, 1]}
    outputs = {"one": ("long one", "no"), "two": ("long one", "no"), "three": ("no", "long one")}
    rows: Rows = []
    for name, preferences in votes.items():
        for index, preference in enumerate(preferences):
            first, second = outputs[name]
            if index == 3:  # the same pair the other way around
                first, second, preference = second, first, 3 - preference
            row = {"instruction": name, "output_1": first, "output_2": second, "preference": preference}
            rows.append(row | {"annotator_index": index, "dataset": "toy", "datasplit": "eval"})
    path = write(tmp_path / "alpaca_farm_human_crossannotations.json", rows)
    assert len(load_items(load_suite("alpacaeval"), str(path)).items) == 3
    values = percents("alpacaeval", path, capsys)
    assert values["human agreement"] == pytest.approx(100 * (0.5 + 1 + 0.25) / 3)
    assert values["people among themselves"] == pytest.approx(100 * (0 + 3 + 1.5) / 12)
    assert agreement(1.0, [0.0, 1.0, 1.0]) == 1
    assert agreement(0.5, [0.0]) == 0.5


def test_arena_votes_with_ties_and_without(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def talk(prompt: str, reply: str) -> Rows:
        return [{"role": "user", "content": prompt}, {"role": "assistant", "content": reply}]

    verdicts = [("model_a", "long one", "no"), ("model_b", "long one", "no"), ("tie (bothbad)", "same", "size")]
    verdicts += [("tie", "long one", "no"), ("model_b", "no", "long one"), ("model_a", "a b", "c")]
    rows = [
        {"model_a": "m", "model_b": "n", "winner": winner, "conversation_a": talk(f"Q{n}", a)}
        | {"conversation_b": talk(f"Q{n}", b)}
        for n, (winner, a, b) in enumerate(verdicts)
    ]
    empty = rows[0] | {"conversation_a": [], "conversation_b": [], "tstamp": 1}  # as the real sets hold some
    path = write(tmp_path / "votes.jsonl", [*(row | {"tstamp": 1} for row in rows), empty])
    values = percents("arena", path, capsys)
    assert sum(load_items(load_suite("arena"), str(path)).left_out.values()) == 1
    assert values["with ties"] == pytest.approx(100 * 4 / 6)
    assert values["decided"] == 75
    with pytest.raises(DataError, match=r"row 2: no row of lmarena or .*its fields: a, b"):
        load_items(load_suite("arena"), str(write(tmp_path / "other.jsonl", [rows[0], {"a": 1, "b": 2}])))
    with pytest.raises(UsageError, match="pass --data FILE or FOLDER: a file of arena votes"):
        call("eval", ["length", "--suite", "arena"])


UNVERIFIED: dict[str, tuple[Rows, dict[str, float]]] = {
    "ppe-human": (
        [
            {"question_id": f"q{n}", "model_a": "m", "model_b": "n", "winner": winner, "prompt": f"P{n}"}
            | {"response_1": "long one", "response_2": "no", "language": "English"}
            for n, winner in enumerate(["model_a", "model_a", "model_b", "tie"])
        ],
        {"with ties": 50, "accuracy": 200 / 3},
    ),
    "ppe-correctness": (
        [
            {"question_id": "k1", "prompt": "One", "model_name": "m", "response_1": "long one", "response_2": "no"}
            | {"response_3": "middle", "scores": [True, False, False], "sampled_conflict_pairs": [[0, 1]]},
            {"question_id": "k2", "prompt": "Two", "model_name": "m", "response_1": "long one", "response_2": "no"}
            | {"response_3": "middle", "scores": [False, False, True], "sampled_conflict_pairs": [[2, 0]]},
        ],
        {"best of K": 50, "pairs": 75},
    ),
    "m-rewardbench": (
        [
            {"id": n, "prompt": f"P{n}", "chosen": chosen, "rejected": "no", "language": "fr", "category": category}
            | {"chosen_model": "m", "rejected_model": "n", "subset": "s"}
            for n, (chosen, category) in enumerate([("yes!", "Chat"), ("n", "Chat"), ("yes!", "Chat"), ("y", "Safety")])
        ],
        {"pairs": 50, "overall": (200 / 3 + 0) / 2},
    ),
    "rag-rewardbench": (
        [
            {"prompt": f"P{n}", "question": f"Q{n}", "chosen": chosen, "rejected": "no", "references": ["r"]}
            | {"subset": subset}
            for n, (chosen, subset) in enumerate([("yes!", "harmless"), ("n", "citation"), ("yes!", "citation")])
        ],
        {"pairs": 200 / 3, "overall": 75},
    ),
    "code-rewardbench": (
        [
            {"prompt": f"P{n}", "chosen": chosen, "rejected": "no", "subset": subset}
            for n, (chosen, subset) in enumerate([("yes!", "python"), ("n", "go"), ("yes!", "go")])
        ],
        {"pairs": 200 / 3, "overall": 75},
    ),
    "acemath-rewardbench": (
        [
            {"prompt": f"P{n}", "subset": subset}
            | {"responses": [{"text": "long one", "correct": first}, {"text": "no", "correct": not first}]}
            for n, (first, subset) in enumerate([(True, "gsm8k"), (False, "math"), (True, "math"), (True, "math")])
        ],
        {"pairs": 75, "best of 8": (100 + 200 / 3) / 2},
    ),
}


@pytest.mark.parametrize("name", UNVERIFIED)
def test_suites_whose_form_was_not_seen_say_so_and_work(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    rows, expected = UNVERIFIED[name]
    assert load_suite(name).note.startswith("Form unverified here")
    values = percents(name, write(tmp_path / "rows.jsonl", rows), capsys)
    assert {measure: values[measure] for measure in expected} == pytest.approx(expected)


class Told:
    """A model whose numbers its texts tell: `one` gives a text's probability of being good."""

    def __init__(self, one: Callable[[str], float], *, scale: Scale = "probability") -> None:
        self.one, self.info = one, ModelInfo("told", "process", scale, True, f"told {scale}")

    def score(self, batch: Sequence[Candidates]) -> list[list[Score]]:
        return [[self._score(completion) for completion in item.completions] for item in batch]

    def _score(self, completion: Any) -> Score:
        starts = (0, *completion.step_ends)
        steps = tuple(self.one(completion.text[a:b]) for a, b in zip(starts, completion.step_ends, strict=False))
        return Score(min(steps) if steps else self.one(completion.text), steps=steps)

    def compare(self, batch: Sequence[Candidates]) -> list[Comparison]:
        return compare_by_score(self.score, batch)


def numbers(model: Told, suite: str, data: Path) -> dict[str, float]:
    """The same of a model that is an object."""
    result = rmkit.evaluate(model, suite=suite, data=data).models[0]
    return {name: one.percent for name, one in (dict(result.measures) | dict(result.cells)).items()}


CLASSES = ("redundency", "circular", "counterfactual", "step_contradiction", "domain_inconsistency", "confidence")
CLASSES += ("missing_condition", "deception", "multi_solutions")


def prmbench(name: str, steps: str, errors: Sequence[int]) -> dict[str, Any]:
    """A row; g, b and h are steps that the model below calls right, wrong, and right by exactly a half."""
    words = {"g": "good", "b": "bad", "h": "half"}
    texts = [f"{words[one]} {at}" for at, one in enumerate(steps)]
    row = {"original_question": "q", "modified_question": f"Solve {name}.", "original_process": ["good"]}
    row |= {"modified_process": texts, "modified_steps": errors, "error_steps": errors, "reason": "r"}
    return row | {"idx": f"{name}_prm_test_p1_0", "question": "q", "classification": name}


def test_prmscore_is_the_mean_of_both_f1_over_all_steps(home: Path, tmp_path: Path) -> None:
    rows = [prmbench(name, "ggb", [3]) for name in CLASSES[2:8]]  # all called as they are
    rows += [prmbench("redundency", "gggbh", [2, 4]), prmbench("circular", "gb", [1])]
    rows += [prmbench("multi_solutions", "gggb", [])]
    rows += [prmbench("redundency", "bbbbb", [1])]  # the same id again: read once
    write(tmp_path / "prmtest_classified" / "all.jsonl", rows)
    model = Told(lambda text: 0.9 if "good" in text else 0.5 if "half" in text else 0.1)
    measures = numbers(model, "prmbench", tmp_path)
    # redundency: labels 1 0 1 0 1, called 1 1 1 0 0 (a half is not above it): TP 2, FP 1, TN 1, FN 1
    assert measures["redundency/f1"] == pytest.approx(100 * 4 / 6)
    assert measures["redundency/negative_f1"] == pytest.approx(100 * 2 / 4)
    assert measures["non-redundancy"] == pytest.approx(100 * (4 / 6 + 2 / 4) / 2)
    assert measures["non-circular logic"] == 0  # both steps called wrongly
    assert measures["multi-solution consistency"] == pytest.approx(100 * 6 / 7)  # TP 3, FN 1
    assert measures["soundness"] == 100
    # all: TP 12 + 2 + 0 + 3, TN 6 + 1, FP 1 + 1, FN 1 + 1 + 1
    assert measures["F1"] == pytest.approx(100 * 34 / (34 + 2 + 3))
    assert measures["negative F1"] == pytest.approx(100 * 14 / (14 + 2 + 3))
    assert measures["PRMScore"] == pytest.approx(50 * (34 / 39 + 14 / 19))


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "steps_prmbench.jsonl.gz").is_file(), reason="no real data here")
def test_prmscore_on_the_real_file_is_scikit_learns(home: Path) -> None:
    from sklearn.metrics import f1_score

    def one(text: str) -> float:
        return (len(text) * 7919 % 1000) / 1000

    measures = numbers(Told(one), "prmbench", DATA)
    items = load_items(load_suite("prmbench"), str(DATA)).items
    assert len(items) == 6971
    truth: dict[str, list[int]] = {}
    called: dict[str, list[int]] = {}
    for item in items:
        assert item.candidates is not None
        [scored] = Told(one).score([item.candidates])[0]
        truth.setdefault(item.subset, []).extend(int(label) for label in item.gold["labels"])
        called.setdefault(item.subset, []).extend(int(step > 0.5) for step in scored.steps)
    every = [[one for name in CLASSES for one in table[name]] for table in (truth, called)]
    expected = [f1_score(*every, pos_label=side) for side in (1, 0)]
    assert measures["F1"] == pytest.approx(100 * expected[0], abs=1e-9)
    assert measures["negative F1"] == pytest.approx(100 * expected[1], abs=1e-9)
    assert measures["PRMScore"] == pytest.approx(50 * sum(expected), abs=1e-9)
    for name in CLASSES[:-1]:
        sides = [f1_score(truth[name], called[name], pos_label=side) for side in (1, 0)]
        assert [measures[f"{name}/f1"], measures[f"{name}/negative_f1"]] == pytest.approx([100 * s for s in sides])


def test_healthbench_holds_a_verdict_against_every_physician(home: Path, tmp_path: Path) -> None:
    """The numbers of the test that its authors ship with their code."""
    cases = [("yes", [True, True, False], "a"), ("no", [True, False], "a"), ("yes", [False], "b")]
    rows = [
        {"prompt": [{"role": "user", "content": f"Q{n}"}], "prompt_id": f"h{n}", "completion_id": f"c{n}"}
        | {"completion": f"{verdict} {n}", "rubric": f"Criterion {n}", "category": f"cluster:{cluster}"}
        | {"binary_labels": labels, "anonymized_physician_ids": [f"d{i}" for i in range(len(labels))], "canary": "t"}
        for n, (verdict, labels, cluster) in enumerate(cases)
    ]
    path = write(tmp_path / "2025_oss_meta_eval.jsonl", rows)
    model = Told(lambda text: 0.5 if "yes" in text else 0.4)
    measures = numbers(model, "healthbench-meta", path)
    assert measures["met"] == pytest.approx(100 * 4 / 7)  # precision 2/4, recall 2/3
    assert measures["not met"] == pytest.approx(40)  # precision 1/2, recall 1/3
    assert measures["balanced F1"] == pytest.approx(50 * (4 / 7 + 0.4))
    assert measures["cluster:a/f1"] == pytest.approx(100 * 4 / 6)
    # people: TTF gives TT 2 and four that differ (in either direction), TF gives two that differ
    assert measures["people, met"] == pytest.approx(100 * 4 / (4 + 6))
    assert measures["people, not met"] == 0
    items = load_items(load_suite("healthbench-meta"), str(path)).items
    assert [item.candidates.rubric for item in items if item.candidates] == [
        ({"criterion": f"Criterion {n}"},) for n in range(3)
    ]
    other = rmkit.evaluate(Told(lambda text: 3.0, scale="rating"), suite="healthbench-meta", data=path).models[0]
    assert other.measures["met"].unscored == 3


def test_the_listing_says_where_data_is_expected(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("suites", ["--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["suites"]}
    assert rows["prmbench"]["headline"] == "PRMScore"
    assert all(
        row["where"] or row["hub"] or row["files"] or row["license"] == "as your file says" for row in rows.values()
    )
    assert call("suites", ["rmb"]) == 0
    assert "49 scenarios" in capsys.readouterr().out
    with pytest.raises(UsageError, match="did you mean 'rmb'"):
        call("suites", ["rmbb"])
