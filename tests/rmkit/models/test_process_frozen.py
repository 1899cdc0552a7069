"""The frozen per-step head and the measures of steps, against hand numbers and scikit-learn."""

from __future__ import annotations

import json
import math
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rmkit.cli import main as cli
from rmkit.errors import ConfigError, DataError, ModelError
from rmkit.features.encoder import single_threaded
from rmkit.metrics.steps import auc, first_error, first_error_scores
from rmkit.types import Candidates, Completion, Message
from tests.exports import row, write_export
from tests.rmkit.tiny_encoder import write_tiny_encoder

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from rmkit.heads.steps import SURFACE, FrozenProcessConfig, Solution, fit, step_inputs  # noqa: E402
from rmkit.models import load_model  # noqa: E402
from rmkit.training import process_frozen  # noqa: E402

Floats = NDArray[np.float64]


def test_first_errors_and_their_f1_by_hand() -> None:
    assert first_error([0.9, 0.5, 0.49, 0.1]) == 2
    assert first_error([1.0, math.nan]) == -1  # no label is no error
    found = first_error_scores([1, 0, -1, -1, 2], [1, 2, -1, 0, -1])
    assert (found.erroneous, found.correct) == (3, 2)
    assert found.error_accuracy == pytest.approx(1 / 3)
    assert found.correct_accuracy == pytest.approx(1 / 2)
    assert found.f1 == pytest.approx(2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2))
    assert found.right.tolist() == [1, 0, 1, 0, 0]
    assert first_error_scores([0], [1]).f1 != 0  # no correct solution: not a number, not zero
    assert first_error_scores([0, 0], [1, -1]).f1 == 0


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-3, 3), st.booleans(), st.integers(1, 4)), min_size=4, max_size=30).filter(
        lambda rows: len({right for _, right, _ in rows}) == 2
    )
)
def test_auc_agrees_with_scikit_learn(rows: list[tuple[int, bool, int]]) -> None:
    from sklearn.metrics import roc_auc_score

    score, right, weight = map(np.array, zip(*rows, strict=True))
    assert auc(score, right) == pytest.approx(roc_auc_score(right, score))
    assert auc(score, right, weight=weight) == pytest.approx(roc_auc_score(right, score, sample_weight=weight))


def test_auc_of_one_class_is_unknown() -> None:
    assert math.isnan(auc([1.0, 2.0], [True, True]))
    assert math.isnan(auc([], []))


def test_inputs_see_the_step_and_what_came_before_it() -> None:
    vectors = {"p": [1.0, 0.0], "one": [0.6, 0.8], "three": [0.0, 1.0]}
    [made] = step_inputs(
        [Solution("p", ("one", "three"))], lambda texts: np.array([vectors[t.text] for t in texts]), width=2
    )
    expected = [
        [0.6, 0.8, 0, 0, math.log(4), 0, 0.6, 0.6],
        [0.0, 1.0, 1, math.log(2), math.log(6), math.log(4), 0.0, 0.8],
    ]
    assert made.tolist() == pytest.approx(np.array(expected), abs=1e-6)
    [alone] = step_inputs([Solution("p", ("one",))], lambda t: np.array([vectors[x.text] for x in t]), width=2)
    assert alone[0].tolist() == made[0].tolist()  # later steps change nothing


def planted(n: int, *, seed: int = 0, width: int = 5) -> tuple[Floats, Floats]:
    draw = np.random.default_rng(seed)
    inputs = draw.normal(size=(n, width)) * np.arange(1, width + 1)
    logit = inputs[:, 0] - 0.5 * inputs[:, 1] + 1
    return inputs.astype(np.float32), (draw.random(n) < 1 / (1 + np.exp(-logit))).astype(float)


def test_the_linear_head_is_logistic_regression_without_penalty_on_the_surface() -> None:
    from sklearn.linear_model import LogisticRegression

    inputs, label = planted(400)
    config = FrozenProcessConfig(penalties=(1e-6,), hidden=0)
    head = fit((inputs, label), planted(200, seed=1), config, surface=2)
    reference = LogisticRegression(C=1e6, max_iter=5000, tol=1e-8).fit(inputs, label)
    held, _ = planted(50, seed=2)
    assert head.logits(held) == pytest.approx(reference.decision_function(held), abs=0.02)
    strong = fit((inputs, label), planted(200, seed=1), FrozenProcessConfig(penalties=(1e4,), hidden=0), surface=2)
    assert np.abs(strong.arrays["out"][:3]).max() < 1e-3
    assert np.abs(strong.arrays["out"][3:]).max() > 1e-3


def test_unlabeled_steps_change_nothing() -> None:
    inputs, label = planted(300)
    config = FrozenProcessConfig(penalties=(0.01,), hidden=0)
    without = fit((inputs, label), planted(100, seed=1), config, surface=2)
    extended = np.concatenate([inputs, 100 + inputs[:50]]), np.concatenate([label, np.full(50, np.nan)])
    again = fit(extended, planted(100, seed=1), config, surface=2)
    assert again.arrays["out"] == pytest.approx(without.arrays["out"], abs=1e-6)


def test_the_hidden_layer_wins_where_no_line_can() -> None:
    draw = np.random.default_rng(0)
    inputs = draw.normal(size=(1500, 4)).astype(np.float32)
    label = (inputs[:, 0] * inputs[:, 1] > 0).astype(float)
    config = FrozenProcessConfig(penalties=(0.01,), hidden=16, learning_rate=1e-2, dropout=0.0)
    head = fit((inputs[:1000], label[:1000]), (inputs[1000:], label[1000:]), config, surface=2)
    assert head.facts["head"] == "hidden 16"
    assert auc(head.logits(inputs[1000:]), label[1000:] > 0.5) > 0.9
    again = fit((inputs[:1000], label[:1000]), (inputs[1000:], label[1000:]), config, surface=2)
    assert again.logits(inputs).tolist() == head.logits(inputs).tolist()  # the seed decides


def test_configs_that_make_no_sense_are_refused() -> None:
    for wrong in ({"penalties": ()}, {"hidden": -1}, {"dropout": 1.0}, {"epochs": 0}):
        with pytest.raises(ConfigError):
            FrozenProcessConfig(**wrong)
    assert SURFACE == 6


GOOD, BAD = "thank you glad\n\ngladly welcome\n\nhappy", "thank you glad\n\nnonsense stupid wrong\n\nhappy"


def stepped_rows(n: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """Solutions of one to four steps; one that says "nonsense" is the first error. A few labels are the wrong way."""
    draw, rows = random.Random(seed), []
    for number in range(n):
        steps, labels, wrong = [], [], False
        for _ in range(draw.randint(1, 4)):
            bad = not wrong and draw.random() < 0.3
            steps.append(" ".join(draw.choices(["eggs", "bread", "music"], k=2) + ["nonsense" if bad else "thank"] * 2))
            labels.append(None if wrong else float(bad == (draw.random() < 0.04)))
            wrong = wrong or bad
        ends = np.cumsum([len(step) + 2 for step in steps])
        ends[-1] -= 2
        split = ("train", "train", "validation")[number % 3]
        given = {"step_ends": [ends.tolist()], "step_labels": labels, "family": number, "split": split}
        rows.append(row(f"tell me about number {number % 10}", ["\n\n".join(steps)], kind="steps", **given))
    return rows


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], Path]:
    """The artifact that the command makes, what it told, and the encoder."""
    folder = tmp_path_factory.mktemp("trained")
    encoder = write_tiny_encoder(folder / "encoder")
    wrong = row("tell me", ["no steps"], kind="single", split="train")
    data = write_export(folder / "data", [*stepped_rows(240), wrong])
    (folder / "head.toml").write_text(
        f'encoder = "{encoder}"\ndtype = "fp32"\nmax_tokens = 32\nhidden = 0\nreduction = "product"\n'
    )
    with pytest.MonkeyPatch.context() as patch, single_threaded():
        patch.setenv("RMKIT_HOME", str(folder / "home"))
        given = ["process-frozen", "--data", str(data), "--config", str(folder / "head.toml"), "--json"]
        patch.setattr("rmkit.cli.display.emit", lambda result, **_: told.update(result))
        told: dict[str, Any] = {}
        assert cli.call("train", [*given, "-o", str(folder / "model")]) == 0
    return folder / "model", told, encoder


def asked(*texts: str, ends: tuple[int, ...] = ()) -> Candidates:
    completions = tuple(Completion((Message("assistant", text),), step_ends=ends) for text in texts)
    return Candidates((Message("user", "tell me about number 3"),), completions)


def test_the_command_trains_a_model_that_finds_the_error(
    trained: tuple[Path, dict[str, Any], Path], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, told, _ = trained
    facts = told["validation"]
    assert facts["auc"] > 0.85
    assert facts["log_loss"] < 0.7 * facts["log_loss_of_rate"]
    assert told["training"]["rows"] == {"train": 160, "validation": 80}
    assert told["training"]["skipped"] == {"train": {"no step labels (kind single)": 1}, "validation": {}}
    model = load_model(folder)
    assert (model.info.kind, model.info.scale, model.info.pointwise) == ("process", "probability", True)
    [[right, wrong, empty, hollow]] = model.score([asked(GOOD, BAD, " ", "thank")])
    assert int(np.argmin(wrong.steps)) == 1
    assert len(right.steps) == 3
    assert right.value == pytest.approx(math.prod(right.steps)) == right.aspects["product"]
    assert wrong.aspects["min"] == min(wrong.steps) < min(right.steps)
    assert empty.unscored == "the completion has no assistant text"
    assert hollow.unscored is None
    [[gap]] = model.score([asked("thank\n\nyou", ends=(5, 7))])
    assert "step ending at character 7 has no visible character" in str(gap.unscored)
    odds = [score.value / (1 - score.value) for score in (right, wrong)]
    assert model.compare([asked(GOOD, BAD)])[0].p_first == pytest.approx(odds[0] / sum(odds))
    assert cli.main(["verify", str(folder)]) == 0
    file = home.parent / "asked.jsonl"
    file.write_text(json.dumps({"prompt": "tell me about number 3", "responses": [GOOD, BAD]}) + "\n")
    assert cli.main(["score", str(folder), str(file), "-o", str(home.parent / "scores.jsonl")]) == 0
    [line] = (home.parent / "scores.jsonl").read_text().splitlines()
    assert json.loads(line)["scores"][1]["steps"] == pytest.approx(wrong.steps)


def test_later_steps_and_company_change_nothing(trained: tuple[Path, dict[str, Any], Path], home: Path) -> None:
    model: Any = load_model(trained[0])
    [[whole, part]] = model.golden_scores([asked(BAD, BAD.rsplit("\n\n", 1)[0])])
    [[alone]] = model.golden_scores([asked(BAD)])
    assert whole.steps[:2] == pytest.approx(part.steps, abs=1e-5)
    assert alone.steps == pytest.approx(whole.steps, abs=1e-5)


def test_an_artifact_that_was_changed_does_not_load(
    trained: tuple[Path, dict[str, Any], Path], home: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(trained[0], folder)
    golden = folder / "golden.jsonl"
    lines = [json.loads(line) for line in golden.read_text().splitlines()]
    assert max(len(line["steps"]) for line in lines) == 3
    lines[-1]["steps"][0] += 0.01
    golden.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ModelError, match="golden step scores differ"):
        load_model(folder)
    shutil.copy(trained[0] / "golden.jsonl", golden)
    encoder = tmp_path / "encoder"
    shutil.move(trained[2], encoder)
    try:
        write_tiny_encoder(trained[2], seed=5)
        with pytest.raises(ModelError, match="trained on encoder"):
            load_model(folder)
    finally:
        shutil.rmtree(trained[2])
        shutil.move(encoder, trained[2])


def test_what_cannot_be_trained_on_is_refused(home: Path, tmp_path: Path) -> None:
    few = write_export(tmp_path / "few", stepped_rows(20))
    with pytest.raises(DataError, match="the train split has 14 usable rows, at least 20 are needed"):
        process_frozen.train(str(few), output=tmp_path / "m", values={"encoder": "absent"})
    with pytest.raises(ConfigError, match="step_separator"):
        process_frozen.train(str(few), output=tmp_path / "m", values={"step_separator": ""})
    assert not (tmp_path / "m").exists()
