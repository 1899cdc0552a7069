"""A language model as UPO's estimator: it learns which of two replies is better, and its passes differ."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from evaluation.benchmarks.policy.synthetic_task import COURTEOUS, PLAIN, RUDE, policy, tokenizer  # noqa: E402
from rmkit.errors import ConfigError, DataError  # noqa: E402
from rmkit.models.transformer.pair_estimator import LanguageModelConfig, LanguageModelEstimator  # noqa: E402
from rmkit.types import Candidates, Completion, Message  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    target = tmp_path_factory.mktemp("language-model")
    words = tokenizer()
    policy(words, seed=0).save_pretrained(target)
    words.save_pretrained(target)
    return target


def pairs(n: int, *, seed: int) -> list[Candidates]:
    """The courteous reply first."""
    draw = random.Random(seed)
    replies = [
        [" ".join([*draw.choices(PLAIN, k=2), draw.choice(words)]) for words in (COURTEOUS, RUDE)] for _ in range(n)
    ]
    return [Candidates((Message("user", "Tell me"),), tuple(Completion((Message("assistant", text),)) for text in both))
            for both in replies]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("lora_rank", [0, 4])
def test_it_learns_the_order_and_doubts_where_it_should(folder: Path, lora_rank: int) -> None:
    config = LanguageModelConfig(model=str(folder), epochs=6, lr=3e-3, passes=6, max_length=100, lora_rank=lora_rank)
    estimator = LanguageModelEstimator(config, seed=0).fit(pairs(160, seed=1))
    held_out = pairs(60, seed=2)
    found = estimator.uncertainty(held_out)
    assert found.passes.shape == (6, 60)
    assert (found.mean > 0.5).mean() > 0.85
    turned = estimator.uncertainty([one.of(*one.completions[::-1]) for one in held_out])
    assert np.abs(turned.mean - (1 - found.mean)).mean() < 0.05  # masks differ, the answer does not
    assert (np.ptp(found.passes, axis=0) > 0).all()
    again = estimator.uncertainty(held_out)
    np.testing.assert_array_equal(found.passes, again.passes)
    same = [one.of(one.completions[0], one.completions[0]) for one in held_out]
    assert np.abs(estimator.uncertainty(same).mean - 0.5).mean() < 0.1  # equal replies: only the masks differ


def test_what_cannot_be_judged(folder: Path) -> None:
    estimator = LanguageModelEstimator(LanguageModelConfig(model=str(folder), passes=2, max_length=60))
    long = Candidates((Message("user", "Tell me " * 80),), pairs(1, seed=0)[0].completions)
    found = estimator.uncertainty([pairs(1, seed=0)[0], long])
    assert np.isnan(found.passes).tolist() == [[False, True]] * 2
    with pytest.raises(DataError, match="at least 50"):
        estimator.fit(pairs(20, seed=0))
    with pytest.raises(ConfigError, match="dropout lies in"):
        LanguageModelConfig(model=str(folder), dropout=0.0)
