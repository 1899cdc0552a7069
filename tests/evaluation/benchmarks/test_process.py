"""The process benchmark: problems, folds, measures, and a whole run on a tiny encoder."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from rmkit.revision import versions_text

pytest.importorskip("torch")
pytest.importorskip("transformers")

from evaluation.benchmarks.process import run as process
from evaluation.benchmarks.process.measures import Arm, compare, measures
from rmkit.cli import main as cli
from rmkit.errors import DataError
from tests.rmkit.tiny_encoder import write_tiny_encoder

NAN = float("nan")


def solutions(path: Path, n: int, *, seed: int = 0) -> Path:
    """Solutions in which a step that says "nonsense" is the first error."""
    draw, lines = random.Random(seed), []
    words = ["eggs", "bread", "rivers", "music", "chess", "stars", "trains", "paint", "number", "about"]
    for number in range(n):
        steps, labels, wrong = [], [], False
        for _ in range(draw.randint(2, 5)):
            bad = not wrong and draw.random() < 0.25
            said = draw.choices(words, k=4) + (["nonsense"] * 3 if bad else ["thank", "you", "glad"])
            steps.append(" ".join(said))
            labels.append(None if wrong else int(not bad))
            wrong = wrong or bad
        prompt = " ".join(draw.choices(words, k=12)) + f" {number}"
        lines.append({"id": f"s{number}", "prompt": prompt, "steps": steps, "labels": labels})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_reworded_originals_and_near_duplicates_are_one_problem() -> None:
    long = "how many eggs are in a basket of twelve when four of them are broken on the way to the market"
    prompts = ["what is two plus two", "name the sum of 2 and 2", long, long + " today", "what is three times five"]
    ids = ["prmbench-circular-prm_test_p1_7-aa", "prmbench-deception-prm_test_p1_7", "x", "y", "z-prm_test_p1_70"]
    found = process._problems(prompts, ids)
    assert found[0] == found[1]
    assert found[2] == found[3]
    assert len(set(found.tolist())) == 3


def test_folds_keep_problems_whole_and_are_even() -> None:
    problem = np.repeat(np.arange(40), np.random.default_rng(0).integers(1, 9, 40))
    fold = process.fold_of(problem, 5, seed=3)
    assert all(len(set(fold[problem == one].tolist())) == 1 for one in range(40))
    assert np.ptp(np.bincount(fold, minlength=5)) <= 8
    assert process.fold_of(problem, 5, seed=3).tolist() == fold.tolist() != process.fold_of(problem, 5, seed=4).tolist()


def test_measures_agree_with_scikit_learn_and_differences_are_paired() -> None:
    from sklearn.metrics import log_loss, roc_auc_score

    draw = np.random.default_rng(1)
    labels = [np.where(draw.random(3) < 0.7, 1.0, 0.0) for _ in range(60)]
    for of in labels:  # labels end at the first error
        of[np.arange(3) > np.flatnonzero(np.append(of, 0) == 0)[0]] = NAN
    steps = [np.clip(0.3 * np.nan_to_num(of) + 0.7 * draw.random(3), 0.01, 0.99) for of in labels]
    problem = np.repeat(np.arange(20), 3)
    wanted = [int(np.flatnonzero(np.append(of, 0) == 0)[0]) if 0 in of else -1 for of in labels]
    good, poor = Arm(steps, wanted), Arm([np.full(3, 0.7) for _ in labels], [-1] * 60)
    found = measures(good, labels, problem)
    known = ~np.isnan(np.concatenate(labels))
    label, score = np.concatenate(labels)[known], np.concatenate(steps)[known]
    assert found["log_loss"]["value"] == pytest.approx(log_loss(label, score))
    assert found["auc"]["value"] == pytest.approx(roc_auc_score(label, score))
    assert found["f1"]["value"] == 1.0  # the predictions given, not those of the steps
    assert found["auc"]["low"] < found["auc"]["value"] < found["auc"]["high"] + 1e-9
    flat = measures(poor, labels, problem)
    assert (flat["auc"]["value"], flat["f1"]["value"]) == (0.5, 0.0)
    assert (flat["error_accuracy"], flat["correct_accuracy"]) == (0.0, 1.0)
    difference = compare(good, poor, labels, problem)
    assert difference["auc"]["value"] == pytest.approx(found["auc"]["value"] - 0.5)
    assert difference["auc"]["low"] > 0
    gap = found["log_loss"]["value"] - flat["log_loss"]["value"]
    assert difference["log_loss"]["low"] < gap == pytest.approx(difference["log_loss"]["value"])
    nothing = compare(good, good, labels, problem)
    assert all(nothing[name] == {"value": 0.0, "low": 0.0, "high": 0.0} for name in ("log_loss", "auc", "f1"))


@pytest.mark.slow
def test_a_run_finds_planted_errors(tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, encoder = solutions(tmp_path / "steps.jsonl", 90), write_tiny_encoder(tmp_path / "encoder")
    output = tmp_path / "page.md"
    given = ["process", "--data", str(data), "--encoder", str(encoder), "--folds", "3", "--page", str(output), "--json"]
    assert cli.call("bench", given) == 0
    found = json.loads(capsys.readouterr().out)["files"]["steps.jsonl"]
    assert found["rows"] == found["problems"] == 90
    assert list(found["arms"]) == list(process.ARMS)
    assert found["arms"]["constant"]["f1"]["value"] < 0.4
    assert found["arms"]["lexical"]["auc"]["value"] > 0.95
    assert found["arms"]["frozen"]["auc"]["value"] > 0.9
    assert found["differences"]["constant"]["auc"]["low"] > 0.2
    page = output.read_text()
    assert versions_text() in page
    assert "| frozen minus | log loss | AUC | F1 |" in page
    assert f"{found['steps']} labeled steps, {found['wrong_steps']} of them wrong" in page


def test_files_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps({"prompt": "p", "steps": ["a", "b"], "labels": [1]}) + "\n")
    with pytest.raises(DataError, match=r"row 1: .*1 labels for 2 steps"):
        process.read(path)
    path.write_text("{")
    with pytest.raises(DataError, match="cannot be read as JSON lines"):
        process.read(path)
    path.write_text("")
    with pytest.raises(DataError, match="no solution in steps"):
        process.read(path)
    with pytest.raises(DataError, match="three folds"):
        process.main(["--data", str(path), "--folds", "2"])
