"""The UPO loop with a tiny real policy: three rounds, killed and resumed; its parts by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from data_pipelines.loops import upo  # noqa: E402
from data_pipelines.loops.upo import LoopConfig, candidates, run_loop  # noqa: E402
from data_pipelines.loops.upo_policy import PolicyConfig, PolicyPair, train_policy  # noqa: E402
from evaluation.denoise.fine_tuned import causal_model  # noqa: E402
from rmkit.errors import ConfigError  # noqa: E402
from rmkit.ledger import open_ledger  # noqa: E402
from rmkit.reliability.uncertainty import Uncertainty  # noqa: E402
from rmkit.types import (  # noqa: E402
    Candidates,
    Comparison,
    Completion,
    Message,
    ModelInfo,
    RewardModel,
    Score,
    compare_by_score,
)

LIKED = "a"


class Letters:
    """The reward: how much of a reply is the letter a."""

    info = ModelInfo("letters", "explicit", "logit", True, "letters-1")

    def score(self, batch: Sequence[Candidates]) -> list[list[Score]]:
        return [[Score(4.0 * share(one.text)) for one in item.completions] for item in batch]

    def compare(self, batch: Sequence[Candidates]) -> list[Comparison]:
        return compare_by_score(self.score, batch)


def share(text: str) -> float:
    return text.lower().count(LIKED) / max(len(text), 1)


def estimate(pairs: Sequence[PolicyPair]) -> Uncertainty:
    """Passes around the truth, surer the further apart the replies are."""
    gap = np.array([4 * (share(pair.chosen) - share(pair.rejected)) for pair in pairs])
    noise = np.random.default_rng(0).normal(size=(10, 1))
    return Uncertainty(1 / (1 + np.exp(-gap - 0.5 * noise)))


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("policy")
    causal_model(folder, hidden=32, seed=0)
    return folder


PROMPTS = [(Message("user", f"say something {number}"),) for number in range(18)]
LABELED = [PolicyPair(prompt, "a a a a", "x y z q") for prompt in PROMPTS[:10]]
CONFIG = LoopConfig(max_tokens=12, temperature=1.0, pair_share=1.0,
                    policy=PolicyConfig(lr=5e-3, epochs=4, batch_pairs=4, nll_weight=1.0, max_length=96))  # fmt: skip


def loop(folder: Path, policy: Path, *, config: LoopConfig = CONFIG) -> list[dict[str, Any]]:
    model: RewardModel = Letters()
    with open_ledger() as ledger:
        return run_loop(folder, policy, prompts=PROMPTS, labeled=LABELED, reward=model, estimate=estimate,
                        ledger=ledger, config=config)  # fmt: skip


def weights(folder: Path) -> bytes:
    return (folder / "iteration-3" / "policy" / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_three_rounds_raise_the_reward_and_a_killed_loop_ends_the_same(
    policy: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = loop(tmp_path / "whole" / "upo", policy)
    assert [one["round"] for one in facts] == [1, 2, 3]
    assert facts[2]["mean_reward"] > facts[0]["mean_reward"] + 0.1
    assert all(one["selected"] <= one["candidates"] for one in facts)
    pairs = pq.read_table(tmp_path / "whole" / "upo" / "iteration-2" / "pairs.parquet").to_pylist()
    assert all(len(row["passes"]) == 10 and row["margin"] > 0 for row in pairs)
    assert {row["reason"] == "" for row in pairs} == {True, False}
    assert sum(row["selected"] for row in pairs) == facts[1]["selected"]
    assert sum(row["trained_on"] for row in pairs) == facts[1]["new_pairs"]

    train, rounds = upo.train_policy, []

    def killed(*arguments: Any, **named: Any) -> dict[str, float]:
        rounds.append(1)
        if len(rounds) == 2:
            raise KeyboardInterrupt
        return train(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(upo, "train_policy", killed)
        with pytest.raises(KeyboardInterrupt):
            loop(tmp_path / "broken" / "upo", policy)
    assert sorted(path.name for path in (tmp_path / "broken" / "upo").glob("iteration-*")) == ["iteration-1"]
    (tmp_path / "broken" / "upo" / "iteration-2.9.partial").mkdir()
    assert loop(tmp_path / "broken" / "upo", policy) == facts
    assert weights(tmp_path / "broken" / "upo") == weights(tmp_path / "whole" / "upo")
    assert loop(tmp_path / "broken" / "upo", policy) == facts  # a finished loop only tells
    with pytest.raises(ConfigError, match="other settings"):
        loop(tmp_path / "broken" / "upo", policy, config=LoopConfig(seed=1))


def test_candidates_take_winners_from_the_upper_and_losers_from_the_lower_half() -> None:
    replies = tuple(Completion((Message("assistant", text),)) for text in ("p", "q", "r", "s", "t"))
    group = Candidates(PROMPTS[0], replies)
    found = candidates([group], [[3.0, 1.0, 2.0, 1.0, math.nan]], share=1.0, seed=[0])
    assert {(one.pair.chosen, one.pair.rejected, one.margin) for one in found} == {
        ("p", "q", 2.0), ("p", "s", 2.0), ("r", "q", 1.0), ("r", "s", 1.0)}  # fmt: skip
    assert candidates([group], [[1.0] * 5], share=1.0, seed=[0]) == []
    assert len(candidates([group], [[3.0, 1.0, 2.0, 1.0, math.nan]], share=0.25, seed=[0])) == 1


def test_the_policy_loss_is_dpo_with_smoothing_and_the_winners_likelihood(policy: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, reference = (AutoModelForCausalLM.from_pretrained(policy, dtype="float32") for _ in range(2))
    tokenizer = AutoTokenizer.from_pretrained(policy)
    pair = PolicyPair(PROMPTS[0], "the sky", "a lazy dog", alpha=0.3)
    config = PolicyConfig(lr=1e-12, nll_weight=0.5, max_length=96)
    told = train_policy(model, reference, tokenizer, [pair], config=config)
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": "say something 0", "tool_calls": None}],
                                           add_generation_prompt=True, tokenize=True, return_dict=False)  # fmt: skip
    reply = [*tokenizer.encode("the sky", add_special_tokens=False), tokenizer.eos_token_id]
    ids = torch.tensor([[*prompt, *reply]])
    with torch.no_grad():
        loss = reference(input_ids=ids, labels=torch.tensor([[-100] * len(prompt) + reply])).loss.item()
    assert told["loss"] == pytest.approx(math.log(2) + 0.5 * loss, rel=1e-4)  # h is 0 before the first step
    assert (told["pairs"], told["too_long"]) == (1, 0)


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match="samples at least 4"):
        LoopConfig(samples=3)
    with pytest.raises(ConfigError, match="must be positive"):
        PolicyConfig(beta=0.0)


def test_facts_are_json(policy: Path, home: Path, tmp_path: Path) -> None:
    facts = loop(tmp_path / "one" / "upo", policy, config=LoopConfig(iterations=1, max_tokens=8, temperature=1.0))
    assert json.loads(json.dumps(facts)) == facts
