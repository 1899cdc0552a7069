"""`rmkit train frozen --denoise`: wrong labels in the train split weigh less, and the model says so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from rmkit.data.example import Example
from rmkit.data.pairs import Pair, read_pairs
from rmkit.errors import ConfigError
from rmkit.features.encoder import EncoderConfig, single_threaded
from rmkit.training import command as train
from rmkit.training.denoised import METHODS, denoised
from tests.exports import kind_rows, write_export
from tests.rmkit.tiny_encoder import write_tiny_encoder


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with single_threaded():
        yield


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_encoder(tmp_path_factory.mktemp("encoder"))


def noisy_rows(n: int) -> tuple[list[dict[str, Any]], set[str]]:
    """Kind pairs in which every fourth train label is wrong, and the wrong rows' ids."""
    rows = kind_rows(n)
    wrong = [row for at, row in enumerate(rows) if row["split"] == "train" and at % 4 == 0]
    for row in wrong:
        row["p"] = row["p"][::-1]
    return rows, {row["id"] for row in wrong}


@pytest.mark.parametrize("method", ["peer", "cross_fit"])
def test_wrong_labels_are_left_out_on_the_way_to_the_model(
    method: str, encoder: Path, home: Path, tmp_path: Path
) -> None:
    rows, wrong = noisy_rows(300)
    values = {"encoder": str(encoder), "max_tokens": 32, "dtype": "fp32", "hidden": (0,), "linear_lr": 0.01}
    result = train.train("frozen", str(write_export(tmp_path / "data", rows)), output=tmp_path / "model", values=values,
                         denoise=method)  # fmt: skip
    told = result["training"]["denoise"]
    assert told["noise"]["source"] == "cross_fit"
    assert told["left_out"] > 0.6 * len(wrong)
    assert result["training"]["pairs"]["train"] == told["pairs"] - told["left_out"]
    assert result["validation"]["accuracy"]["value"] >= 0.9


def test_weights_multiply_and_ties_stay(encoder: Path, home: Path) -> None:
    rows, _ = noisy_rows(200)
    rows[1]["p"] = [0.5, 0.5]
    pairs: list[Pair] = read_pairs(Example(row | {"weight": 0.5}) for row in rows)[0]
    config = EncoderConfig(encoder=str(encoder), max_tokens=32, dtype="fp32")
    kept, facts = denoised(pairs, method="peer", noise=0.3, encoder=config, seed=0)
    by_id = {pair.id: pair.weight for pair in kept}
    assert set(by_id.values()) == {0.25, 0.5}
    assert by_id[rows[1]["id"]] == 0.5
    assert facts["noise"]["source"] == "given"
    assert facts["left_out"] == len(pairs) - len(kept)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_makes_the_labels_better(method: str, encoder: Path, home: Path) -> None:
    if method == "confident":
        pytest.importorskip("cleanlab")
    rows, wrong = noisy_rows(240)
    pairs = read_pairs(Example(row) for row in rows if row["split"] == "train")[0]
    config = EncoderConfig(encoder=str(encoder), max_tokens=32, dtype="fp32")
    kept, facts = denoised(pairs, method=method, noise=0.25, encoder=config, seed=0)
    assert facts["left_out"] == len(pairs) - len(kept)
    given = sum(pair.id in wrong for pair in pairs) / len(pairs)
    if method == "upo_smoothed":
        sure: dict[bool, list[float]] = {True: [], False: []}
        for pair, before in zip(kept, pairs, strict=True):
            assert (pair.p >= 0.5) == (before.p > 0.5) or pair.p == 0.5
            sure[pair.id in wrong].append(max(pair.p, 1 - pair.p))
        assert sum(sure[True]) / len(sure[True]) < sum(sure[False]) / len(sure[False]) - 0.005
        return
    left = sum(pair.weight for pair in kept if pair.id in wrong) / sum(pair.weight for pair in kept)
    assert left < 0.5 * given
    assert all(reason for reason in facts["reasons"])


def test_bad_settings_are_told(encoder: Path, home: Path) -> None:
    pairs = read_pairs(Example(row) for row in kind_rows(60))[0]
    config = EncoderConfig(encoder=str(encoder), max_tokens=32, dtype="fp32")
    with pytest.raises(
        ConfigError, match="expected one of peer, self, mean, cross_fit, confident, gap, upo, upo_smoothed, got 'pear'"
    ):
        denoised(pairs, method="pear", noise=0.1, encoder=config, seed=0)
    with pytest.raises(ConfigError, match=r"in \[0, 0.5\)"):
        denoised(pairs, method="peer", noise=0.7, encoder=config, seed=0)
