"""UPO's evidence from a whole transformer scored several times with dropout switched on."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rmkit.chat.encode import Chat, TruncationPolicy
from rmkit.data.example import Example
from rmkit.errors import DataError
from rmkit.models.transformer.explicit import ExplicitRewardModel
from rmkit.models.transformer.reward_module import RewardModule
from rmkit.models.wrappers.dropout import with_dropout
from rmkit.reliability.uncertainty import from_scores
from rmkit.types import Candidates, Completion, Message, ModelInfo, Score
from tests.data_pipelines.frames import apply, frame
from tests.data_pipelines.frames import pair as labeled

Make = Callable[..., Any]


def pair(prompt: str, first: str, second: str) -> Candidates:
    completions = tuple(Completion((Message("assistant", text),)) for text in (first, second))
    return Candidates((Message("user", prompt),), completions)


PAIRS = [pair("the quick fox", "yes", "no, the sky is blue"), pair("2 + 2", "4", "five"), pair("step", "one", "")]


@pytest.fixture
def engine(tiny_model: Make, make_tokenizer: Make, chatml: str) -> ExplicitRewardModel:
    tokenizer = make_tokenizer(chatml)
    model = tiny_model("llama", seed=0, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)
    chat = Chat(tokenizer, TruncationPolicy(max_length=200, response_reserve_tokens=100))
    return ExplicitRewardModel(RewardModule(model), chat, ModelInfo("m", "explicit", "logit", True, "0"))


def test_passes_of_a_whole_model_become_probabilities(engine: ExplicitRewardModel) -> None:
    model = with_dropout(engine, rate=0.2, passes=5, where="model")
    draws = model.draws(PAIRS)  # type: ignore[attr-defined]
    found = from_scores(draws)
    assert found.passes.shape == (5, 3)
    margin = draws[2][0][0].value - draws[2][0][1].value
    assert found.passes[2, 0] == pytest.approx(1 / (1 + np.exp(-margin)))
    assert (found.bald[:2] > 0).all()
    np.testing.assert_array_equal(found.passes, from_scores(model.draws(PAIRS)).passes)  # type: ignore[attr-defined]


def test_an_unscored_response_leaves_its_pair_out_and_sleeping_dropout_is_refused() -> None:
    draws = [[[Score(1.0), Score(0.0)], [Score.failed("empty"), Score(1.0)]] for _ in range(3)]
    with pytest.raises(DataError, match="dropout is not active"):
        from_scores(draws)
    draws[1][0][0] = Score(1.5)
    found = from_scores(draws)
    assert np.isnan(found.mean).tolist() == [False, True]


def test_the_step_uncertainty_may_ask_a_whole_model(
    engine: ExplicitRewardModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rmkit.models.load_model", lambda name: engine)
    rows = frame([labeled(f"the sky {at}", f"yes {at}", f"no {at}", [("ann", "ab"[at % 2])]) for at in range(60)])
    result = apply("uncertainty", rows, estimator="reward_model", model="m", passes=4, agreement=False, selector="bald")
    assert len(result.kept) == 30
    told = [json.loads(one) for one in result.records["reliability"]["evidence"]]
    assert {len(one["passes"]) for one in told} == {4}
    kept = set(result.kept["id"])
    by_id = dict(zip(result.records["reliability"]["id"], told, strict=True))
    assert max(by_id[one]["bald"] for one in kept) <= min(by_id[one]["bald"] for one in by_id.keys() - kept)
    row = next(row for row in rows.to_dicts() if row["p"][0] > row["p"][1])
    plain = engine.score([Example(row | {"generators": None}).candidates])[0]
    assert by_id[row["id"]]["margin"] == pytest.approx(plain[0].value - plain[1].value, abs=1e-4)
    with pytest.raises(DataError, match="40 usable pairs with a winner, at least 50"):
        apply("uncertainty", rows.head(40), estimator="reward_model", model="m")
