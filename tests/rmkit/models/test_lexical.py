"""The lexical model and the artifact folder it shares with others: fit, calibration, golden scores, tampering."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from rmkit.data.example import Example
from rmkit.data.pairs import Pair, column, read_pairs
from rmkit.errors import ConfigError, ModelError
from rmkit.ids import canonical_json, file_sha256
from rmkit.models import load_model
from rmkit.models.artifact import folder as artifact
from rmkit.models.artifact import golden
from rmkit.models.small import lexical
from rmkit.models.small.length import LengthModel
from rmkit.training import command as train
from rmkit.types import Candidates, Completion, Message, RewardModel
from tests.exports import kind_rows, write_export


def ask(prompt: str, *responses: str) -> Candidates:
    return Candidates(
        (Message("user", prompt),), tuple(Completion((Message("assistant", text),)) for text in responses)
    )


def pairs(n: int, **options: Any) -> list[Pair]:
    return read_pairs([Example(row) for row in kind_rows(n, **options)])[0]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lexical")
    data = write_export(folder / "data", kind_rows(120))
    train.train("lexical", str(data), output=folder / "model")
    return folder / "model"


def test_it_learns_and_generalizes(trained: Path) -> None:
    model = load_model(trained)
    assert isinstance(model, RewardModel)
    assert (model.info.name, model.info.kind, model.info.scale, model.info.pointwise) == (
        "model",
        "explicit",
        "logit",
        True,
    )
    [[kind, rude]] = model.score([ask("tell me about cats", "gladly thank you cats", "stupid boring cats")])
    assert kind.value > rude.value + 1
    [comparison] = model.compare([ask("tell me about cats", "stupid boring cats", "gladly thank you cats")])
    assert comparison.p_first == pytest.approx(1 / (1 + np.exp(kind.value - rude.value)))


def test_scores_do_not_depend_on_the_batch(trained: Path) -> None:
    model = load_model(trained)
    items = [ask("a", "thank you", "no never", "rivers"), ask("b c", "glad"), ask("d", "wrong wrong")]
    together = model.score(items)
    alone = [model.score([item])[0] for item in items]
    assert [len(scores) for scores in together] == [3, 1, 1]
    assert [[s.value for s in scores] for scores in together] == [[s.value for s in scores] for scores in alone]
    assert model.score(items[::-1])[::-1] == together
    assert model.score([]) == []


def test_an_empty_completion_is_unscored_and_spares_the_rest(trained: Path) -> None:
    for model in (load_model(trained), load_model("length")):
        [[empty, full]] = model.score([ask("q", " \n", "thank you")])
        assert empty.unscored is not None
        assert full.unscored is None
        [comparison] = model.compare([ask("q", " \n", "thank you")])
        assert comparison.unscored == empty.unscored


def test_the_fit_is_the_weighted_logistic_regression() -> None:
    """Against the mirrored formulation: each pair in both directions, classes weighted by the soft label."""
    settings = lexical.LexicalConfig(hash_bits=10, c_grid=(0.5,), max_iter=5000)
    rows = pairs(60, flipped=0.2)
    soft = [Pair(**{name: getattr(pair, name) for name in Pair.__slots__} | {"p": 0.2 + 0.6 * pair.p}) for pair in rows]
    fitted = lexical.fit(soft, soft, settings)
    difference = lexical._differences(soft, settings).toarray()
    p = column(soft, "p")
    mirrored = LogisticRegression(C=0.25, fit_intercept=False, max_iter=5000, tol=1e-8).fit(
        np.concatenate([difference, difference, -difference, -difference]),
        np.repeat([1, 0, 0, 1], len(p)),
        sample_weight=np.concatenate([p, 1 - p, p, 1 - p]),
    )
    assert np.allclose(fitted.weights, mirrored.coef_[0], atol=2e-3)
    assert np.allclose(fitted.validation_margin, difference @ fitted.weights, atol=1e-5)


def test_c_is_chosen_by_validation_log_loss() -> None:
    noisy = lexical.fit(pairs(80, flipped=0.4), pairs(60, seed=9), lexical.LexicalConfig(c_grid=(0.01, 30.0)))
    losses = noisy.validation_log_loss
    assert set(losses) == {"0.01", "30"}
    assert losses[f"{noisy.c:g}"] == min(losses.values())


def test_weights_of_pairs_matter() -> None:
    right, wrong = pairs(40), pairs(40, seed=1, flipped=1.0)
    heavy = [Pair(**{name: getattr(pair, name) for name in Pair.__slots__} | {"weight": 50.0}) for pair in right]
    fitted = lexical.fit([*heavy, *wrong], right, lexical.LexicalConfig(c_grid=(1.0,)))
    agree = np.sign(fitted.validation_margin) == np.sign(column(right, "p") - 0.5)
    assert agree.mean() > 0.9


@pytest.mark.parametrize(
    "values",
    [{"hash_bits": 40}, {"ngram": 0}, {"c_grid": ()}, {"c_grid": (0.0, 1.0)}, {"max_iter": -1}],
    ids=lambda value: str(value),
)
def test_bad_config_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        lexical.LexicalConfig(**values)


def test_the_length_model_prefers_length_and_nothing_else() -> None:
    model = LengthModel()
    [[short, long, same]] = model.score([ask("q", "abc", "abcdef", "fedcba")])
    assert short.value == pytest.approx(np.log(4))
    assert long.value == same.value > short.value


def test_saving_twice_gives_the_same_bytes_and_fingerprint(tmp_path: Path) -> None:
    data = write_export(tmp_path / "data", kind_rows(60))
    one, two = (train.train("lexical", str(data), output=tmp_path / name / "model") for name in ("a", "b"))
    assert one["fingerprint"] == two["fingerprint"]
    for name in (artifact.WEIGHTS, golden.GOLDEN):
        assert (tmp_path / "a/model" / name).read_bytes() == (tmp_path / "b/model" / name).read_bytes()


def edit_card(**changes: Any) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / artifact.CARD
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return apply


def edit_golden(folder: Path) -> None:
    path = folder / golden.GOLDEN
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[2]["score"] += 1e-3
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def flip_byte(folder: Path) -> None:
    path = folder / artifact.WEIGHTS
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def forge(folder: Path) -> None:
    """Other weights with a matching hash and fingerprint: only the golden scores can tell."""
    with np.load(folder / artifact.WEIGHTS) as arrays:
        changed = {"columns": arrays["columns"], "values": arrays["values"] * 1.01}
    card = json.loads((folder / artifact.CARD).read_text())
    artifact.build_artifact(folder, card=card, arrays=changed)


def lose_arrays(folder: Path) -> None:
    card = json.loads((folder / artifact.CARD).read_text())
    artifact.build_artifact(folder, card=card, arrays={"columns": np.arange(3, dtype=np.int32)})


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda folder: (folder / artifact.WEIGHTS).unlink(), "weights.npz is missing"),
        (lambda folder: (folder / golden.GOLDEN).unlink(), "golden.jsonl is missing"),
        (lambda folder: (folder / golden.GOLDEN).write_text(""), "golden.jsonl is empty"),
        (lambda folder: (folder / artifact.CARD).unlink(), "not a reward model"),
        (lambda folder: (folder / artifact.CARD).write_text("{"), "cannot be read"),
        (edit_golden, "golden score differs"),
        (flip_byte, "weights.npz was changed"),
        (forge, "golden score differs"),
        (lose_arrays, "do not fit the config"),
        (edit_card(temperature=0.5), "reward_model.json was changed"),
        (edit_card(model="oracle"), "unknown model 'oracle'"),
    ],
)
def test_a_damaged_artifact_is_refused(trained: Path, tmp_path: Path, harm: Any, message: str) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder)
    load_model(folder)
    harm(folder)
    with pytest.raises(ModelError, match=message):
        load_model(folder)


def test_pickles_are_never_loaded(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder)
    np.savez(folder / artifact.WEIGHTS, columns=np.array([{"a": 1}], dtype=object), allow_pickle=True)
    card = json.loads((folder / artifact.CARD).read_text())
    card["files"] = {artifact.WEIGHTS: file_sha256(folder / artifact.WEIGHTS)}
    card["fingerprint"] = artifact.fingerprint(card)
    (folder / artifact.CARD).write_text(canonical_json(card))
    with pytest.raises(ModelError, match="cannot be read"):
        load_model(folder)


def test_building_replaces_a_model_but_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/thesis.txt").write_text("precious")
    with pytest.raises(ModelError, match="not a reward model"), artifact.building(tmp_path / "notes"):
        pass
    assert (tmp_path / "notes/thesis.txt").read_text() == "precious"
    for content in ("one", "two"):
        with artifact.building(tmp_path / "model") as folder:
            (folder / artifact.CARD).write_text(content)
    assert (tmp_path / "model" / artifact.CARD).read_text() == "two"


def test_a_failure_leaves_the_old_model_and_no_rubbish(tmp_path: Path) -> None:
    with artifact.building(tmp_path / "model") as folder:
        (folder / artifact.CARD).write_text("old")
    with pytest.raises(FileNotFoundError), artifact.building(tmp_path / "model") as folder:
        (folder / "absent").rename(folder / artifact.CARD)
    assert (tmp_path / "model" / artifact.CARD).read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_replacing_a_model_never_leaves_its_name_to_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill before any rename or other change of names leaves the old or the new model."""
    with artifact.building(tmp_path / "model") as folder:
        (folder / artifact.CARD).write_text("old")
    seen = []
    for name in ("rename", "replace"):
        real = getattr(os, name)

        def spied(*places: Path, real: Callable[..., None] = real) -> None:
            seen.append((tmp_path / "model" / artifact.CARD).read_text())
            real(*places)

        monkeypatch.setattr(os, name, spied)
    with artifact.building(tmp_path / "model") as folder:
        (folder / artifact.CARD).write_text("new")
    assert seen
    assert set(seen) <= {"old", "new"}
    assert (tmp_path / "model" / artifact.CARD).read_text() == "new"
