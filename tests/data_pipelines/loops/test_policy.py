"""Training a policy: the losses by hand; what rows teach; SPIN on a categorical policy against its closed form."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from data_pipelines.loops.group_policy import advantages, group_loss, train_groups  # noqa: E402
from data_pipelines.loops.policy import (  # noqa: E402
    PolicyConfig,
    PolicyPair,
    log_likelihoods,
    preference_loss,
    train_policy,
)
from data_pipelines.loops.train_policy import groups, lessons  # noqa: E402
from evaluation.denoise.fine_tuned import causal_model  # noqa: E402
from rmkit.data.example import EXAMPLE_SCHEMA, Example  # noqa: E402
from rmkit.errors import ConfigError, DataError  # noqa: E402
from rmkit.ids import assistant_message, user_message  # noqa: E402
from rmkit.types import Message  # noqa: E402

PROMPT = (Message("user", "say something 0"),)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("policy")
    causal_model(folder, hidden=32, seed=0)
    return folder


def test_the_losses_are_dpo_with_smoothing_and_likelihood_and_imitation(policy: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, reference = (AutoModelForCausalLM.from_pretrained(policy, dtype="float32") for _ in range(2))
    tokenizer = AutoTokenizer.from_pretrained(policy)
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": "say something 0", "tool_calls": None}],
                                           add_generation_prompt=True, tokenize=True, return_dict=False)  # fmt: skip
    reply = [*tokenizer.encode("the sky", add_special_tokens=False), tokenizer.eos_token_id]
    with torch.no_grad():
        ids = torch.tensor([[*prompt, *reply]])
        loss = reference(input_ids=ids, labels=torch.tensor([[-100] * len(prompt) + reply])).loss.item()
    pair = PolicyPair(PROMPT, "the sky", "a lazy dog", alpha=0.3)
    result = train_policy(model, reference, tokenizer, [pair], config=PolicyConfig(lr=1e-12, nll_weight=0.5))
    assert result["loss"] == pytest.approx(math.log(2) + 0.5 * loss, rel=1e-4)  # h is 0 before the first step
    assert (result["pairs"], result["too_long"]) == (1, 0)
    alone = PolicyPair(PROMPT, "the sky", None)
    result = train_policy(model, None, tokenizer, [alone], config=PolicyConfig(loss="nll", lr=1e-12))
    assert result["loss"] == pytest.approx(loss, rel=1e-4)
    assert "agrees" not in result
    [known, none] = log_likelihoods(model, tokenizer, [alone, PolicyPair(PROMPT, "sky " * 90, None)], max_length=100)
    assert none is None
    assert known is not None
    assert known.tokens == len(reply)
    assert known.total == pytest.approx(-loss * len(reply), rel=1e-4)


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match="must be positive"):
        PolicyConfig(beta=0.0)


def row(texts: list[str], **label: object) -> Example:
    values = dict.fromkeys(EXAMPLE_SCHEMA.names) | {"prompt": user_message("q"), "weight": 1.0}
    return Example(values | {"responses": [assistant_message(text) for text in texts]} | label)


def test_what_rows_teach() -> None:
    rows = [
        row(["a", "b"], p=[0.2, 0.8]),
        row(["a", "b", "c"], ranks=[2, 0, 1]),
        row(["a"]),
        row(["a", "b"], p=[0.5, 0.5]),
        row(["a", "b"], p=[1.0, 0.0], weight=0.0),
        row(["a", "b", "c"], ranks=[0, None, 1]),
    ]
    pairs, unused = lessons(rows, loss="dpo")
    assert [one[1:] for one in pairs] == [("b", "a", pytest.approx(0.2)), ("b", "a", 0.0)]
    assert unused == {"one response alone": 1, "undecided": 2, "no response, or no weight": 1}
    pairs, _ = lessons(rows, loss="nll")
    assert [one.chosen for one in pairs] == ["b", "b", "a"]


def spin_round(before: Any, target: Any, *, beta: float) -> Any:
    """The policy [K] that minimizes SPIN's loss in expectation: winners from the target, losers from `before`."""
    logits = before.log().clone().requires_grad_()
    K = len(target)
    winner, loser = (grid.reshape(-1) for grid in torch.meshgrid(torch.arange(K), torch.arange(K), indexing="ij"))
    weight = target[winner] * before[loser]
    config = PolicyConfig(beta=beta, nll_weight=0.0)
    optimizer = torch.optim.LBFGS([logits], max_iter=200, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def loss() -> Any:
        optimizer.zero_grad()
        logp, base = torch.log_softmax(logits, dim=0), before.log()
        both = torch.stack([logp[winner], logp[loser]], dim=1), torch.stack([base[winner], base[loser]], dim=1)
        zero, one = torch.zeros(1, dtype=torch.double), torch.ones(1, dtype=torch.double)
        losses = [preference_loss(both[0][i : i + 1], both[1][i : i + 1], alpha_B=zero, length_B=one, config=config)
                  for i in range(len(winner))]  # fmt: skip
        value = (weight * torch.stack(losses)).sum()
        value.backward()
        return value

    optimizer.step(loss)
    return torch.softmax(logits, dim=0).detach()


def test_spin_on_a_categorical_policy_falls_to_the_target_and_stays_there() -> None:
    """The optimum of a round is before^(1 - 1/beta) target^(1/beta), normalized (Chen et al., theorem 5.4)."""
    beta = 2.0
    target, policy = torch.tensor([0.6, 0.3, 0.1]).double(), torch.tensor([0.1, 0.2, 0.7]).double()
    kl = [float((target * (target / policy).log()).sum())]
    for _ in range(4):
        expected = policy ** (1 - 1 / beta) * target ** (1 / beta)
        policy = spin_round(policy, target, beta=beta)
        np.testing.assert_allclose(policy, expected / expected.sum(), atol=1e-5)
        kl.append(float((target * (target / policy).log()).sum()))
    assert all(after < 0.5 * before for before, after in pairwise(kl))
    assert kl[-1] < 0.01
    np.testing.assert_allclose(spin_round(target, target, beta=beta), target, atol=1e-8)


def test_the_group_loss_by_hand() -> None:
    """Rewards 1, 0, 0: advantages 2/3, -1/3, -1/3 over a deviation; then ratios of 1.5 and 0.5 at a token each."""
    gains = advantages([1.0, 0.0, 0.0])
    std = math.sqrt(1 / 3)  # over n - 1
    assert gains == pytest.approx([2 / 3 / (std + 1e-6), -1 / 3 / (std + 1e-6), -1 / 3 / (std + 1e-6)], rel=1e-6)
    assert advantages([2.0, 2.0]) == [0.0, 0.0]
    old = torch.zeros(3, 3)
    now = torch.tensor([[0.0, math.log(1.5), 9.0], [math.log(1.5), 0.0, 0.0], [math.log(0.5), 9.0, 9.0]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 0, 0]]) > 0
    signal = torch.tensor([2.0, -1.0, -1.0])
    # first: 1 and min(1.5, 1.2) times 2, mean 2.2; second: min(-1.5, -1.2) = -1.5, -1, -1, mean -7/6;
    # third: min(-.5, -.8) = -.8
    loss = group_loss(now, old, mask, signal, clip=0.2)
    assert loss.item() == pytest.approx(-(2.2 - 7 / 6 - 0.8) / 3)


def test_a_group_moves_likelihood_to_what_was_rewarded(policy: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(policy, dtype="float32")
    tokenizer = AutoTokenizer.from_pretrained(policy)
    replies = ("the sky", "a lazy dog", "no")
    rows = [
        row(list(replies), scores=[{"response": at, "aspect": "r", "value": float(at == 1)} for at in range(3)]),
        row(["a", "b"], p=[1.0, 0.0]),
        row(["a", "b"], scores=[{"response": at, "aspect": "r", "value": 0.5} for at in range(2)]),
    ]
    learned, unused = groups(rows)
    assert unused == {"no scores of two responses, or no weight": 1}
    assert (learned[0].replies, learned[0].rewards) == (replies, (0.0, 1.0, 0.0))
    assert lessons(rows[:1], loss="dpo")[0][0][1:3] == ("a lazy dog", "the sky")  # without a label by the scores
    config = PolicyConfig(loss="grpo", lr=1e-3, epochs=2)
    result = train_groups(model, tokenizer, learned, config=config)
    assert (result["groups"], result["equal_rewards"], result["too_long"], result["rises"]) == (1, 1, 0, 1.0)
    with pytest.raises(DataError, match="none of 1 groups can be learned from: in 1 all rewards are equal"):
        train_groups(model, tokenizer, learned[1:], config=config)
