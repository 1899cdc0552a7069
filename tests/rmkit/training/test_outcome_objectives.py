"""Sum-to-outcome, scaled margins, the listwise policy gradient: by hand, by enumeration, and one real training."""

from __future__ import annotations

import itertools
import math
import random
from pathlib import Path
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from rmkit.data.example import Example  # noqa: E402
from rmkit.errors import ConfigError  # noqa: E402
from rmkit.losses.listwise_policy import expected_ndcg, listwise_policy  # noqa: E402
from rmkit.losses.scaled_margin import scaled_margin  # noqa: E402
from rmkit.losses.sum_to_outcome import sum_to_outcome  # noqa: E402
from rmkit.losses.trajectory_value import step_regression, trajectory_targets  # noqa: E402
from rmkit.models import load_model  # noqa: E402
from rmkit.shaping.pairs import level_pairs  # noqa: E402
from rmkit.training import explicit  # noqa: E402
from rmkit.training.config import training_config  # noqa: E402
from rmkit.training.data import step_labels  # noqa: E402
from rmkit.training.objectives.step_value import OREO  # noqa: E402
from rmkit.training.rows import Preference  # noqa: E402
from rmkit.training.trainer import row_losses  # noqa: E402
from rmkit.types import Candidates, Completion, Message  # noqa: E402
from tests.exports import row as example_row  # noqa: E402
from tests.exports import write_export  # noqa: E402
from tests.rmkit.training.test_training import Make, base_model, row_of  # noqa: E402, F401


def test_contributions_add_up_to_the_outcome() -> None:
    contributions = torch.tensor([[0.2, 0.5, 0.0], [1.0, -0.4, 0.1]])
    loss = sum_to_outcome(contributions, outcome_B=torch.tensor([1.0, 0.5]))
    assert loss.tolist() == pytest.approx([0.09, 0.04])


def test_the_factor_scales_the_margin_and_not_the_loss() -> None:
    chosen, rejected = torch.tensor([0.6, 0.6]), torch.tensor([0.2, 0.2])
    loss = scaled_margin(chosen, rejected, factor_B=torch.tensor([1.0, 2.5]))
    assert loss.tolist() == pytest.approx([math.log1p(math.exp(-0.4)), math.log1p(math.exp(-1.0))])


def test_the_labeled_margin_of_a_row_is_its_factor() -> None:
    """TRPA's pairs as rows: a right winner 2.5, another 1, no margin the default."""
    factors = [pair.weight for pair in level_pairs([1, 2, 3])]
    assert factors == [2.5, 2.5, 1.0]
    rewards = torch.tensor([0.6, 0.2])
    config = training_config("explicit", model="x", objective="scaled_margin", default_factor=3.0)
    for margin, factor in ((2.5, 2.5), (1.0, 1.0), (0.0, 3.0)):
        row = row_of(2, Preference(0, 1, 1.0, 1.0), margin=margin)
        assert row_losses(rewards, [row], config).item() == pytest.approx(math.log1p(math.exp(-0.4 * factor)))
    assert training_config("implicit", model="x", objective="scaled_margin").divides


def exact_ndcg(scores: torch.Tensor, relevance: list[float]) -> torch.Tensor:
    """E[nDCG@2] over all rankings, each with its Plackett-Luce probability."""
    gains = [2.0**one - 1 for one in relevance]
    best = sum(gain / math.log2(place + 2) for place, gain in enumerate(sorted(gains, reverse=True)[:2]))
    total = torch.zeros((), dtype=torch.float64)
    for order in itertools.permutations(range(len(gains))):
        log_p = sum(scores[item] - scores[list(order[place:])].logsumexp(0) for place, item in enumerate(order))
        total = (
            total + log_p.exp() * sum(gains[item] / math.log2(place + 2) for place, item in enumerate(order[:2])) / best
        )
    return total


def test_the_listwise_gradient_is_that_of_the_expected_ndcg() -> None:
    relevance = [0.0, 2.0, 1.0]
    exact = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64, requires_grad=True)
    value = exact_ndcg(exact, relevance)
    value.backward()
    sampled = torch.tensor([[0.3, -0.2, 0.1, 0.0]], dtype=torch.float64, requires_grad=True)
    table = torch.tensor([[*relevance, float("nan")]], dtype=torch.float64)
    options = {"relevance_BN": table, "samples": 40_000, "k": 2, "generator": torch.Generator().manual_seed(0)}
    listwise_policy(sampled, **options).sum().backward()
    assert exact.grad is not None
    assert sampled.grad is not None
    assert sampled.grad[0, :3].tolist() == pytest.approx((-exact.grad).tolist(), abs=5e-3)
    assert sampled.grad[0, 3] == 0  # what is no item
    assert expected_ndcg(sampled, **options).item() == pytest.approx(value.item(), abs=5e-3)
    nothing = torch.zeros((1, 3), dtype=torch.float64)
    assert listwise_policy(nothing, relevance_BN=nothing, samples=8).item() == 0  # no relevant item


def test_descending_the_listwise_loss_ranks() -> None:
    generator = torch.Generator().manual_seed(1)
    scores = torch.zeros((1, 4), dtype=torch.float64, requires_grad=True)
    relevance = torch.tensor([[0.0, 3.0, 1.0, 2.0]], dtype=torch.float64)
    optimizer = torch.optim.Adam([scores], lr=0.1)
    before = expected_ndcg(scores, relevance_BN=relevance, samples=4000, generator=generator).item()
    for _ in range(70):
        optimizer.zero_grad()
        listwise_policy(scores, relevance_BN=relevance, generator=generator).sum().backward()
        optimizer.step()
    after = expected_ndcg(scores, relevance_BN=relevance, samples=4000, generator=generator).item()
    assert before < 0.75 < 0.97 < after
    assert scores[0].argsort(descending=True).tolist() == [1, 3, 2, 0]


def test_contributions_go_with_the_reduction_sum_only() -> None:
    training_config("process", model="x", objective="sum_to_outcome", reduction="sum")
    with pytest.raises(ConfigError, match="contributions: reduction must be sum, got 'min'"):
        training_config("process", model="x", objective="sum_to_outcome")
    with pytest.raises(ConfigError, match="probabilities of steps: reduction must not be sum"):
        training_config("process", model="x", reduction="sum")
    with pytest.raises(ConfigError, match="values: reduction must be value, got 'sum'"):
        training_config("process", model="x", objective="oreo", reduction="sum")


def test_trajectory_values_are_consistent_with_the_outcome() -> None:
    # behind step 1 the ratios of steps 2 and 3 count, at the end none
    ratio = torch.tensor([[0.5, 1.0, -3.0], [2.0, 0.0, 0.0]])
    targets = trajectory_targets(torch.tensor([1.0, 0.0]), ratio, beta=0.1)
    torch.testing.assert_close(targets, torch.tensor([[1.2, 1.3, 1.0], [0.0, 0.0, 0.0]]))
    row = SimpleNamespace(ratings=((1.0, 0.5, 1.0, -3.0),))
    assert OREO(beta=0.1).targets(row) == pytest.approx([1.2, 1.3, 1.0])  # type: ignore[arg-type]
    # errors .2 and .5 of two known steps
    value = torch.tensor([[1.0, 9.0, 0.5]])
    loss = step_regression(value, target_BS=torch.tensor([[1.2, math.nan, 1.0]]))
    assert loss.item() == pytest.approx((0.2**2 + 0.5**2) / 2)


def test_values_of_a_tree_are_its_expected_outcomes_where_the_policy_is_the_reference() -> None:
    """A tabular tree: one free number a state; whatever goes through a state, its value becomes the mean outcome."""
    paths = [(0, 1), (0, 1), (0, 2), (3, 4)]  # states behind the two steps of four trajectories
    outcome = torch.tensor([1.0, 0.0, 1.0, 0.0])
    value = torch.zeros(5, requires_grad=True)
    optimizer = torch.optim.LBFGS([value], lr=0.5, max_iter=100)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        targets = trajectory_targets(outcome, torch.zeros(4, 2), beta=0.01)
        total = step_regression(value[torch.tensor(paths)], target_BS=targets).sum()
        total.backward()
        return total

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    assert value.tolist() == pytest.approx([2 / 3, 0.5, 1.0, 0.0, 0.0], abs=1e-4)


WORTH = {"good": 0.5, "bad": -0.25, "idle": 0.0}


def trajectories(n: int) -> list[dict[str, object]]:
    """Answers of one to four steps, each a word of known worth; only the sum is rated."""
    draw = random.Random(0)
    rows: list[dict[str, object]] = []
    for number in range(n):
        words = [draw.choice(list(WORTH)) for _ in range(draw.randint(1, 4))]
        text, ends = "", []
        for word in words:
            text += f"a {word} step.\n\n"
            ends.append(len(text))
        rating = {"response": 0, "aspect": "outcome", "value": sum(WORTH[word] for word in words)}
        split = "validation" if number % 5 == 0 else "train"
        rows.append(
            example_row(
                f"task {number}", [text], kind="steps", step_ends=[ends], scores=[rating], split=split, family=number
            )
        )
    return rows


@pytest.mark.slow
def test_values_of_any_range_are_learned_at_the_ends_of_steps(base_model: Make, home: Path, tmp_path: Path) -> None:  # noqa: F811
    """The value behind each step is the worth of the steps so far, times ten: far outside of probabilities."""
    rows = trajectories(300)
    for one in rows:
        words = [word for word in one["responses"][0].split() if word in WORTH]  # type: ignore[index]
        one["step_labels"] = [10 * sum(WORTH[word] for word in words[: at + 1]) for at in range(len(words))]
    config = training_config(
        "process", model=base_model("llama"), objective="step_value", reduction="value",
        learning_rate=3e-3, num_train_epochs=12.0, global_batch_size=16, max_length=200, response_reserve_tokens=150,
    )  # fmt: skip
    result = explicit.train(str(write_export(tmp_path / "data", rows)), config, output=tmp_path / "model")
    assert result["validation"]["correlation"] > 0.95
    text = "a good step.\n\na good step.\n\na bad step.\n\n"
    completion = Completion((Message("assistant", text),), step_ends=(14, 28, 41))
    [[score]] = load_model(tmp_path / "model").score([Candidates((Message("user", "task 3"),), (completion,))])
    assert score.value == score.steps[-1]
    assert score.steps == pytest.approx([5, 10, 7.5], abs=2.5)


def test_probabilities_of_steps_are_not_learned_from_other_numbers() -> None:
    row = Example(example_row("task", ["a b"], kind="steps", step_ends=[[1, 3]], step_labels=[0.5, -1.0]))
    assert step_labels(row, any_range=True) == (0.5, -1.0)
    assert "not between 0 and 1" in str(step_labels(row))


@pytest.mark.slow
def test_contributions_are_found_out_from_sums(base_model: Make, home: Path, tmp_path: Path) -> None:  # noqa: F811
    """An additive world: the trained model gives each step what it is worth, though no step was ever labeled."""
    config = training_config(
        "process", model=base_model("llama"), objective="sum_to_outcome", outcome="outcome", reduction="sum",
        learning_rate=3e-3, num_train_epochs=12.0, global_batch_size=16, max_length=200, response_reserve_tokens=150,
    )  # fmt: skip
    folder = write_export(tmp_path / "data", trajectories(400))
    result = explicit.train(str(folder), config, output=tmp_path / "model")
    assert result["validation"]["correlation"] > 0.97
    assert result["validation"]["loss"] < 0.1 * result["validation"]["loss_of_the_mean"]
    model = load_model(tmp_path / "model")
    assert model.info.scale == "rating"
    text = "a good step.\n\na idle step.\n\na bad step.\n\n"
    completion = Completion((Message("assistant", text),), step_ends=(14, 28, 41))
    [[score]] = model.score([Candidates((Message("user", "task 3"),), (completion,))])
    assert score.value == pytest.approx(sum(score.steps))
    assert score.steps == pytest.approx([0.5, 0.0, -0.25], abs=0.15)
