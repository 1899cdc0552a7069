"""The frozen model: its head against torch modules, learning, choosing, golden scores, refused encoders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch

from rmkit.config import build
from rmkit.data.example import Example
from rmkit.data.pairs import read_pairs
from rmkit.errors import ConfigError, ModelError
from rmkit.features.encoder import single_threaded
from rmkit.heads import pairs as frozen_head
from rmkit.heads.pairs import Features, HeadShape, PairFeatures, PairHeadConfig, TrainedHead, head_scores
from rmkit.models import load_model
from rmkit.models.artifact import folder as artifact
from rmkit.models.small import frozen
from rmkit.models.small.frozen import FrozenConfig
from rmkit.serve.parity_check import exactness
from rmkit.training import command as train
from rmkit.types import Candidates, Completion, Message
from tests.exports import kind_rows, write_export
from tests.rmkit.tiny_encoder import write_tiny_encoder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with single_threaded():
        yield


@pytest.fixture
def values(encoder: Path, home: Path) -> dict[str, Any]:
    return {"encoder": str(encoder), "max_tokens": 32, "dtype": "fp32", "hidden": (0, 16), "linear_lr": 0.01}


def ask(prompt: str, *responses: str) -> Candidates:
    return Candidates(
        (Message("user", prompt),), tuple(Completion((Message("assistant", text),)) for text in responses)
    )


def test_it_learns_and_generalizes(values: dict[str, Any], tmp_path: Path) -> None:
    data = write_export(tmp_path / "data", kind_rows(200))
    result = train.train("frozen", str(data), output=tmp_path / "model", values=values)
    assert result["validation"]["accuracy"]["value"] >= 0.9
    model = load_model(tmp_path / "model")
    [[kind, rude]] = model.score([ask("tell me about chess", "gladly thank you chess", "stupid boring chess")])
    assert kind.value > rude.value
    assert (model.info.kind, model.info.scale, model.info.pointwise) == ("explicit", "logit", True)


def test_scores_do_not_depend_on_the_batch(values: dict[str, Any], tmp_path: Path) -> None:
    data = write_export(tmp_path / "data", kind_rows(100))
    train.train("frozen", str(data), output=tmp_path / "model", values=values)
    model = load_model(tmp_path / "model")
    items = [ask("eggs", "thank you", "no never wrong wrong", " "), ask("bread and music", "glad")]
    together = [score.value for scores in model.score(items) for score in scores]
    shutil.rmtree(tmp_path / "home" / "features")  # nothing of the first answer may help the second
    alone = [score.value for item in reversed(items) for score in model.score([item])[0]]
    assert np.isnan(together[2])
    assert np.allclose(together, [*alone[1:], alone[0]], atol=2e-3, equal_nan=True)


def test_the_seed_decides_everything(values: dict[str, Any], tmp_path: Path) -> None:
    data = str(write_export(tmp_path / "data", kind_rows(100, flipped=0.3)))
    same, again, other = (
        train.train("frozen", data, output=tmp_path / name, values=values | {"hidden": (16,)}, seed=seed)
        for name, seed in (("a/model", 0), ("b/model", 0), ("c/model", 1))
    )
    assert same["fingerprint"] == again["fingerprint"] != other["fingerprint"]


def test_the_head_equals_torch_modules() -> None:
    generator = torch.Generator().manual_seed(3)
    prompt, response = (torch.randn(5, 4, generator=generator) for _ in range(2))
    features = Features(prompt, response, torch.log1p(torch.tensor([1.0, 20, 400, 3000, 0])))
    inputs = torch.cat([2 * prompt, 2 * response, 4 * prompt * response], dim=1)  # sqrt(width) = 2
    length = (features.log_length - 6)[:, None]
    for read in (inputs, torch.cat([inputs, 3 * length, 2 * prompt * length], dim=1)):
        width = read.shape[1]
        layer, out = torch.nn.Linear(width, 3), torch.nn.Linear(3, 1, bias=False)
        weights = {"hidden": layer.weight, "hidden_bias": layer.bias, "out": out.weight[0]}
        assert torch.allclose(head_scores(features, weights), out(layer(read).relu())[:, 0], atol=1e-6)
        linear = torch.nn.Linear(width, 1, bias=False)
        assert torch.allclose(head_scores(features, {"out": linear.weight[0]}), linear(read)[:, 0], atol=1e-6)


def pair_table(vectors: Any, rows: Any, p: Any, *, log_length: Any = None, weight: Any = None) -> PairFeatures:
    log_length = np.full(len(vectors), 6.0) if log_length is None else log_length
    ones = np.ones(len(rows))
    return PairFeatures(
        vectors.astype(np.float16), log_length.astype(np.float32), rows, p, ones if weight is None else weight, ones
    )


def made_features(n: int, *, seed: int, p_right: float = 1.0) -> PairFeatures:
    """The first component of a response decides; `p` says so with the given confidence."""
    generator = np.random.default_rng(seed)
    vectors = generator.normal(size=(3 * n, 8)).astype(np.float16)
    rows = np.arange(3 * n).reshape(n, 3)
    first_better = vectors[rows[:, 1], 0] > vectors[rows[:, 2], 0]
    return pair_table(vectors, rows, np.where(first_better, p_right, 1 - p_right))


def train_head(features: PairFeatures, *, hidden: int = 0, **options: Any) -> TrainedHead:
    config = FrozenConfig(**({"linear_lr": 0.02, "hidden_lr": 0.01} | options))
    return frozen_head.train_head(features, made_features(200, seed=9), config, shape=HeadShape(hidden, False))


@pytest.mark.parametrize("hidden", [0, 16])
def test_a_head_finds_the_deciding_component(hidden: int) -> None:
    trained = train_head(made_features(600, seed=1), hidden=hidden)
    validation = made_features(200, seed=9)
    assert (np.sign(trained.validation_margin) == np.sign(validation.p - 0.5)).mean() > 0.9


def test_soft_labels_keep_margins_small() -> None:
    """With p = 0.7 everywhere the best margin is ln(0.7 / 0.3) = 0.85, whatever the number of epochs."""
    hard = train_head(made_features(600, seed=1), patience=40)
    soft = train_head(made_features(600, seed=1, p_right=0.7), patience=40)
    assert np.abs(soft.validation_margin).mean() < 0.5 * np.abs(hard.validation_margin).mean()


def test_pairs_of_weight_zero_teach_nothing() -> None:
    right = made_features(300, seed=1)
    wrong = made_features(300, seed=2)
    both = pair_table(
        np.concatenate([right.vectors, wrong.vectors]),
        np.concatenate([right.rows, wrong.rows + len(right.vectors)]),
        np.concatenate([right.p, 1 - wrong.p]),
        weight=np.concatenate([np.ones(300), np.zeros(300)]),
    )
    validation = made_features(200, seed=9)
    assert (np.sign(train_head(both).validation_margin) == np.sign(validation.p - 0.5)).mean() > 0.9


def test_early_stopping_keeps_the_best_epoch() -> None:
    noise = made_features(60, seed=4)
    noise = pair_table(noise.vectors, noise.rows, np.random.default_rng(0).integers(0, 2, 60) * 1.0)
    trained = train_head(noise, hidden=64, patience=3, epochs=40, hidden_lr=0.05)
    assert trained.epoch < 30
    repeated = train_head(noise, hidden=64, patience=40, epochs=trained.epoch, hidden_lr=0.05)
    assert np.array_equal(repeated.validation_margin, trained.validation_margin)


def test_the_better_head_on_validation_is_kept(values: dict[str, Any]) -> None:
    pairs, _ = read_pairs([Example(row) for row in kind_rows(120)])
    fitted = frozen.fit(pairs[:80], pairs[80:], build(FrozenConfig, values | {"hidden_lr": 1e-9}, where="test"))
    losses = fitted.facts["validation_log_loss_by_head"]
    assert set(losses) == {"linear", "linear with length", "hidden 16", "hidden 16 with length"}
    assert losses["linear"] < losses["hidden 16"]
    assert losses[fitted.facts["head"]] == min(losses.values())
    assert set(fitted.arrays) == {"out"}
    assert fitted.arrays["out"].dtype == np.float32


def test_with_length_it_learns_which_prompts_want_long_replies() -> None:
    """Half of the prompts want the longer reply, the others the shorter: a length rule earns half, this head all."""
    draw = np.random.default_rng(0)
    n, width = 300, 16
    topic = draw.integers(2, size=n)
    prompt = draw.normal(0, 0.05, (n, width)) + np.where(topic, 1, -1)[:, None] / width**0.5
    vectors = np.concatenate([prompt, draw.normal(0, width**-0.5, (2 * n, width))])
    rows = np.stack([np.arange(n), n + np.arange(n), 2 * n + np.arange(n)], axis=1)
    log_length = draw.uniform(3, 8, 3 * n)
    longer = log_length[rows[:, 1]] - log_length[rows[:, 2]]
    p = ((longer > 0) == (topic == 1)).astype(float)
    parts = [pair_table(vectors, rows[at], p[at], log_length=log_length) for at in (slice(200), slice(200, n))]
    right = {}
    for length in (False, True):
        trained = frozen_head.train_head(*parts, PairHeadConfig(linear_lr=0.01), shape=HeadShape(0, length))
        right[length] = ((trained.validation_margin > 0) == (p[200:] == 1)).mean()
    assert right[True] > 0.9 > 0.7 > right[False]
    assert ((longer[200:] > 0) == (p[200:] == 1)).mean() < 0.7


def test_a_model_may_be_kept_from_reading_the_length(values: dict[str, Any], tmp_path: Path) -> None:
    """Replies without a known word have one feature: only a head that reads the length can tell them apart."""
    data = write_export(tmp_path / "data", kind_rows(100))
    same_words = ask("eggs", "xyzzy", "xyzzy" * 40)
    for length in (False, True):
        chosen = values | {"hidden": (0,), "length": (length,)}
        result = train.train("frozen", str(data), output=tmp_path / "model", values=chosen)
        assert result["training"]["head"] == ("linear with length" if length else "linear")
        [[short, long]] = load_model(tmp_path / "model").score([same_words])
        assert (short.value != long.value) == length


def test_an_artifact_from_before_heads_read_lengths_still_loads(values: dict[str, Any], tmp_path: Path) -> None:
    data = write_export(tmp_path / "data", kind_rows(100))
    train.train("frozen", str(data), output=tmp_path / "model", values=values | {"length": (False,)})
    model = load_model(tmp_path / "model")
    card = json.loads((tmp_path / "model" / artifact.CARD).read_text())
    del card["config"]["length"]
    artifact.build_artifact(tmp_path / "model", card=card, arrays=artifact.open_artifact(tmp_path / "model").weights())
    old = load_model(tmp_path / "model")
    item = [ask("eggs", "thank you", "no never wrong")]
    assert old.score(item) == model.score(item)


def test_another_encoder_is_refused(values: dict[str, Any], encoder: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(encoder, mine)
    data = write_export(tmp_path / "data", kind_rows(100))
    train.train("frozen", str(data), output=tmp_path / "model", values=values | {"encoder": str(mine)})
    load_model(tmp_path / "model")
    write_tiny_encoder(mine, seed=5)
    with pytest.raises(ModelError, match="trained on encoder"):
        load_model(tmp_path / "model")


def test_a_head_of_the_wrong_shape_is_refused(values: dict[str, Any], tmp_path: Path) -> None:
    data = write_export(tmp_path / "data", kind_rows(100))
    train.train("frozen", str(data), output=tmp_path / "model", values=values)
    card = json.loads((tmp_path / "model" / artifact.CARD).read_text())
    for arrays in ({"out": np.zeros(5, np.float32)}, {}):
        artifact.build_artifact(tmp_path / "model", card=card, arrays=arrays)
        with pytest.raises(ModelError, match="the head has arrays"):
            load_model(tmp_path / "model")


def test_fp32_is_what_is_trained_and_served(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On processors that multiply bf16 in hardware too, and for artifacts that were trained on bf16 features there."""
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_bf16": True, "amx_bf16": True})
    data = write_export(tmp_path / "data", kind_rows(200))
    del values["dtype"]
    result = train.train("frozen", str(data), output=tmp_path / "model", values=values)
    assert result["config"]["dtype"] == "fp32"
    rough = train.train("frozen", str(data), output=tmp_path / "rough", values=values | {"dtype": "bf16"})
    assert rough["encoder"]["fingerprint"] != result["encoder"]["fingerprint"]
    for name in ("model", "rough"):
        exact, coarse = load_model(tmp_path / name), load_model(tmp_path / name, precision="bf16")
        asked = [ask("tell me about chess", "gladly thank you chess", "stupid boring chess", "eggs " * 9)]
        [served], [golden] = exact.score(asked), exact.golden_scores(asked)  # type: ignore[attr-defined]
        for one, other in zip(served, golden, strict=True):
            assert one.value == pytest.approx(other.value, rel=1e-3)  # features of the cache are rounded to fp16
        assert [one.encoder.dtype for one in (exact, coarse)] == ["fp32", "bf16"]  # type: ignore[attr-defined]
        assert coarse.score(asked) != [served]
        assert "the precision by" in str(exactness(coarse))
        assert load_model(tmp_path / name, precision="fp32").score(asked) == [served]


@pytest.mark.parametrize("kind", ["pairwise", pytest.param("frozen", marks=pytest.mark.slow)])
def test_scores_do_not_depend_on_batch_mates(values: dict[str, Any], tmp_path: Path, kind: str) -> None:
    data = write_export(tmp_path / "data", kind_rows(200))
    train.train(kind, str(data), output=tmp_path / "model", values=values)
    model = load_model(tmp_path / "model", precision="fp32")
    pairs = [
        ask(f"eggs {n} " * (n % 7 + 1), "thank you " * (n % 5 + 1), "no never wrong " * (n % 3 + 1)) for n in range(40)
    ]
    together, alone = model.compare(pairs), [model.compare([pair])[0] for pair in pairs]
    for one, other in zip(together, alone, strict=True):
        assert one.p_first == pytest.approx(other.p_first, abs=1e-4)


@pytest.mark.parametrize(
    "bad", [{"hidden": ()}, {"hidden": (-1,)}, {"length": ()}, {"linear_lr": 0.0}, {"epochs": 0}, {"max_tokens": 1}]
)
def test_bad_config_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        FrozenConfig(**bad)
