"""The pairwise model: antisymmetric by construction, learns preferences that go round, finds them again as a game."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch

from evaluation.probes.games import exploitability, nash_weights, preference_matrix, three_cycles
from rmkit.chat.steps import NO_TEXT
from rmkit.errors import ConfigError, ModelError
from rmkit.features.encoder import single_threaded
from rmkit.heads.pairs import HeadShape, preference_margin
from rmkit.models import load_model
from rmkit.models.small.pairwise import PairwiseConfig
from rmkit.training import command as train
from rmkit.types import Candidates, Completion, Message
from tests.exports import row, write_export
from tests.rmkit.tiny_encoder import write_tiny_encoder

STYLES = (("eggs", "bread", "rivers"), ("music", "chess", "stars"), ("glad", "happy", "welcome"))  # each beats the next


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with single_threaded():
        yield


@pytest.fixture
def values(tmp_path: Path, home: Path) -> dict[str, Any]:
    encoder = write_tiny_encoder(tmp_path / "encoder")
    return {"encoder": str(encoder), "max_tokens": 32, "dtype": "fp32", "linear_lr": 0.01, "length": (False,)}


def said(style: int, draw: random.Random) -> str:
    return " ".join(draw.choices(STYLES[style], k=6))


def round_rows(n: int) -> list[dict[str, Any]]:
    """Stone, paper, scissors; every family in one split."""
    draw, rows = random.Random(0), []
    for i in range(n):
        style = draw.randrange(3)
        better, worse = said(style, draw), said((style + 1) % 3, draw)
        first = draw.random() < 0.5
        split = "train" if i % 5 < 3 else "validation" if i % 5 == 3 else "test"
        responses = [better, worse] if first else [worse, better]
        rows.append(row(f"tell me number {i}", responses, p=[float(first), float(not first)], family=i, split=split))
    return rows


def pool(*texts: str) -> Candidates:
    completions = tuple(Completion((Message("assistant", text),)) for text in texts)
    return Candidates((Message("user", "tell me about paint"),), completions)


def test_the_margin_by_hand() -> None:
    one, other = torch.tensor([[2.0, 1, 3]]), torch.tensor([[0.5, -1, 4]])  # s, u, v
    assert preference_margin(one, other).tolist() == [1.5 + (1 * 4 - 3 * -1)]
    assert preference_margin(other, one).tolist() == [-8.5]
    assert preference_margin(one[:, 0], other[:, 0]).tolist() == [1.5]


def test_preferences_that_go_round_are_learned_where_a_score_cannot(values: dict[str, Any], tmp_path: Path) -> None:
    data = str(write_export(tmp_path / "data", round_rows(300)))
    told = train.train("pairwise", data, output=tmp_path / "pair", values=values)
    scored = train.train("frozen", data, output=tmp_path / "score", values=values | {"hidden": (0,)})
    assert told["validation"]["accuracy"]["value"] >= 0.9
    assert scored["validation"]["accuracy"]["value"] <= 0.7
    assert "rank" in told["training"]["head"]
    model = load_model(tmp_path / "pair")
    assert (model.info.scale, model.info.pointwise) == ("win_logit", False)
    draw = random.Random(1)
    game = preference_matrix(model, pool(*(said(style, draw) for style in range(3))))
    assert game.swap_gap == pytest.approx(0, abs=1e-6)
    assert three_cycles(game.preference) == [(0, 1, 2)]
    assert exploitability(game.preference, nash_weights(game.preference)) < 0.6
    best = max(exploitability(game.preference, torch.eye(3).double().numpy()[i]) for i in range(3))
    assert best > 0.8  # whatever a score puts first, another one beats


def test_an_order_is_learned_too(values: dict[str, Any], tmp_path: Path) -> None:
    rows = [one for one in round_rows(300) if not any(word in str(one["responses"]) for word in STYLES[2])]
    told = train.train("pairwise", str(write_export(tmp_path / "data", rows)), output=tmp_path / "m", values=values)
    assert told["validation"]["accuracy"]["value"] >= 0.9


def test_empty_responses_are_unscored_and_the_rest_is_not(values: dict[str, Any], tmp_path: Path) -> None:
    data = write_export(tmp_path / "data", round_rows(100))
    train.train("pairwise", str(data), output=tmp_path / "m", values=values)
    model = load_model(tmp_path / "m")
    empty, full = model.compare([pool("eggs", " "), pool("eggs bread", "chess")])
    assert empty.unscored == NO_TEXT
    assert full.unscored is None
    [scores] = model.score([pool("eggs bread", "chess music", "glad")])
    assert all(score.unscored is None for score in scores)


def test_what_cannot_be_is_refused(values: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ranks"):
        PairwiseConfig(ranks=(-1,))
    assert PairwiseConfig(ranks=(0, 2), length=(False,)).shapes == [HeadShape(0, False, 0), HeadShape(0, False, 2)]
    data = write_export(tmp_path / "data", round_rows(100))
    train.train("pairwise", str(data), output=tmp_path / "m", values=values)
    (tmp_path / "m" / "weights.npz").write_bytes(b"x")
    with pytest.raises(ModelError, match="changed"):
        load_model(tmp_path / "m")
