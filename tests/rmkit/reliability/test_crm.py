"""Two stacked heads that review each other: arithmetic against a plain implementation, gains, resume, refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rmkit.errors import ConfigError, DataError
from rmkit.heads.stacked import Table, from_arrays, initial, score, score_margins
from rmkit.heads.stacked_training import HeadConfig, Trainer, batches, clip_each, fit_heads, pair_loss
from rmkit.losses.bradley_terry import bradley_terry
from rmkit.losses.label_smoothing import label_smoothing
from rmkit.losses.robust import robust
from rmkit.reliability.crm import Collaboration, collaborate
from rmkit.reliability.feature_pairs import FeaturePairs, oriented, stacked
from rmkit.reliability.peer_review import ReviewConfig
from tests.rmkit.reliability.reliability_data import flips, planted_pairs

HEAD = HeadConfig(hidden=64, batch_pairs=40, epochs=5, lr=3e-3)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def noisy(n: int = 400, rate: float = 0.4, seed: int = 0) -> tuple[FeaturePairs, np.ndarray]:
    wrong = flips(n, rate, seed=seed)
    return planted_pairs(n, seed=seed).flipped(wrong), wrong


def test_stacked_heads_compute_what_single_ones_compute() -> None:
    pairs = planted_pairs(60)
    both = initial([3, 4], width=pairs.width, hidden=8)
    chosen, rejected = score(both, Table(pairs))
    for head in range(2):
        prompt, good, bad = (torch.from_numpy(pairs.vectors[pairs.rows[:, i]]) * pairs.width**0.5 for i in range(3))
        weight = torch.cat([both.prompt[head], both.response[head]])
        for response, found in ((good, chosen), (bad, rejected)):
            hidden = torch.relu(torch.cat([prompt, response, prompt * response], dim=1) @ weight + both.bias[head])
            np.testing.assert_allclose(found[head], (hidden @ both.out[head])[:, 0].detach(), atol=1e-5)


def test_training_is_plain_bradley_terry_with_adamw() -> None:
    pairs = planted_pairs(80)
    trainer = Trainer(pairs, HEAD, seeds=(5, 6))
    weights = [
        torch.cat([trainer.heads.prompt[1], trainer.heads.response[1]]).detach().clone().requires_grad_(),
        trainer.heads.bias[1].detach().clone().requires_grad_(),
        trainer.heads.out[1].detach().clone().requires_grad_(),
    ]
    plain = torch.optim.AdamW(weights, lr=HEAD.lr, weight_decay=HEAD.weight_decay)
    order = trainer.order(0, [np.arange(80)] * 2)
    for index in np.array_split(order[1], 2):
        prompt, good, bad = (torch.from_numpy(pairs.vectors[pairs.rows[index, i]]) * pairs.width**0.5 for i in range(3))
        rewards = [
            (torch.relu(torch.cat([prompt, y, prompt * y], dim=1) @ weights[0] + weights[1]) @ weights[2])[:, 0]
            for y in (good, bad)
        ]
        plain.zero_grad()
        torch.autograd.backward(bradley_terry(*rewards).mean())
        plain.step()
    trainer.epoch(0, order)
    np.testing.assert_allclose(trainer.heads.out[1].detach(), weights[2].detach(), atol=1e-5)
    np.testing.assert_allclose(trainer.heads.prompt[1].detach(), weights[0][: pairs.width].detach(), atol=1e-5)


def test_a_head_does_not_feel_its_neighbors() -> None:
    pairs, _ = noisy(120)
    alone = fit_heads(pairs, HEAD, seeds=(7,))
    among = fit_heads(pairs, HEAD, seeds=(1, 7, 2), pools=[np.arange(30), np.arange(120), np.arange(30, 60)])
    # the neighbors' pools are shorter, so they take as many steps on smaller batches
    np.testing.assert_allclose(among.out[1], alone.out[0], atol=1e-5)


def test_every_head_takes_equally_many_batches_of_nearly_equal_size() -> None:
    found = list(batches([np.arange(10), np.arange(100, 107)], 4))
    assert len(found) == 3
    assert [(step[0] >= 0).sum() for step in found] == [4, 3, 3]
    assert [(step[1] >= 0).sum() for step in found] == [3, 2, 2]
    assert sorted(np.concatenate([step[1][step[1] >= 0] for step in found])) == list(range(100, 107))


@pytest.mark.parametrize(
    ("loss", "expected"), [("bradley_terry", bradley_terry), ("label_smoothing", label_smoothing), ("robust", robust)]
)
def test_the_losses_are_the_kernels_own(loss: str, expected: object) -> None:
    margin = torch.tensor([-2.0, 0.3, 4.0])
    config = HeadConfig(loss=loss, loss_noise=0.3)  # type: ignore[arg-type]
    options = {} if loss == "bradley_terry" else {"noise": 0.3}
    torch.testing.assert_close(pair_loss(margin, config), expected(margin, torch.zeros(3), **options))  # type: ignore[operator]


def test_a_soft_label_of_one_half_teaches_nothing_and_zero_weights_are_left_out() -> None:
    pairs, wrong = noisy(200)
    unsure = replace(pairs, soft_label=np.where(wrong, 0.5, 1.0))
    left_out = replace(pairs, weight=(~wrong).astype(float))
    clean = planted_pairs(300, seed=8)
    plain, soft, weighed = (
        (score_margins(fit_heads(p, HEAD, seeds=(0,)), Table(clean)) > 0).mean() for p in (pairs, unsure, left_out)
    )
    assert min(soft, weighed) > plain + 0.08
    kept = pairs.take(~wrong)
    assert weighed == pytest.approx(
        (score_margins(fit_heads(kept, HEAD, seeds=(0,)), Table(clean)) > 0).mean(), abs=0.05
    )


def test_gradients_are_clipped_head_by_head() -> None:
    one, two = torch.zeros(2, 3, requires_grad=True), torch.zeros(2, 1, 4, requires_grad=True)
    one.grad, two.grad = torch.tensor([[3.0, 0, 0], [0.1, 0, 0]]), torch.zeros(2, 1, 4)
    two.grad[0, 0, 0] = 4.0
    clip_each([one, two], 1.0)
    assert one.grad.tolist() == [[pytest.approx(0.6), 0, 0], [pytest.approx(0.1), 0, 0]]
    assert two.grad[0, 0, 0] == pytest.approx(0.8)


def test_dropout_masks_differ_by_head_and_epoch_but_not_by_run() -> None:
    pairs, _ = noisy(100)
    config = replace(HEAD, dropout=0.3, epochs=2)
    first, again = (fit_heads(pairs, config, seeds=(0, 1)) for _ in range(2))
    assert torch.equal(first.out, again.out)
    assert not torch.allclose(first.out[0], fit_heads(pairs, replace(config, dropout=0.0), seeds=(0,)).out[0])


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["global", "batch"])
def test_peer_review_learns_what_standard_training_does_not(scope: str) -> None:
    clean = planted_pairs(500, seed=50)
    gains, precisions = [], []
    for seed in range(3):
        pairs, wrong = noisy(400, seed=seed)
        standard = fit_heads(pairs, replace(HEAD, epochs=8), seeds=(2 * seed,))
        found = collaborate(
            pairs,
            noise=0.4,
            review=ReviewConfig(scope=scope),  # type: ignore[arg-type]
            head=replace(HEAD, epochs=8),
            seed=seed,
            truth=~wrong,
        )
        gains.append((found.margin(clean) > 0).mean() - (score_margins(standard, Table(clean)) > 0).mean())
        precisions.append(np.mean(found.audit.epochs[-1].kept_precision))  # type: ignore[arg-type]
        assert found.audit.epochs[-1].keep_ratio == pytest.approx(0.6)
        assert found.audit.kept[-1].mean() == pytest.approx(0.6, abs=0.02)
    assert np.mean(gains) > 0.07
    assert np.mean(precisions) > 0.72  # 0.6 without any skill


def test_the_audit_says_what_each_epoch_trained_on() -> None:
    pairs, _ = noisy(200)
    audit = collaborate(pairs, noise=0.3, head=HEAD).audit
    assert audit.selected_by == (("all", "all"), *[("B", "A")] * 4)
    assert [epoch.kept for epoch in audit.epochs] == [(200, 200), (170, 170), (140, 140), (140, 140), (140, 140)]
    np.testing.assert_array_equal(audit.kept[2, 0], audit.rank[2, 0] < 140)
    by_b = np.argsort(-audit.margin[1, 1], kind="stable")[:140]
    assert set(np.flatnonzero(audit.kept[2, 0])) == set(by_b)  # A's third pool: B's margins after the second epoch
    assert audit.table().num_rows == 5 * 2 * 200


def test_the_curriculum_changes_the_order_but_not_the_pool() -> None:
    pairs, _ = noisy(200)
    config = replace(HEAD, epochs=2)
    plain, sorted_ = (
        collaborate(pairs, noise=0.3, review=ReviewConfig(curriculum=on), head=config) for on in (False, True)
    )
    np.testing.assert_array_equal(plain.audit.kept, sorted_.audit.kept)
    assert not np.array_equal(plain.audit.margin[1], sorted_.audit.margin[1])


def same(first: Collaboration, second: Collaboration) -> None:
    np.testing.assert_array_equal(first.audit.margin, second.audit.margin)
    np.testing.assert_array_equal(first.audit.kept, second.audit.kept)
    np.testing.assert_array_equal(first.audit.rank, second.audit.rank)
    assert first.audit.epochs == second.audit.epochs
    assert torch.equal(first.heads.out, second.heads.out)
    np.testing.assert_array_equal(first.scale.std, second.scale.std)


@pytest.mark.parametrize("review", [ReviewConfig(), ReviewConfig(scope="batch"), ReviewConfig(curriculum=True)])
def test_a_killed_run_goes_on_bit_for_bit(tmp_path: Path, review: ReviewConfig) -> None:
    pairs, wrong = noisy(200)
    options = {"noise": 0.4, "review": review, "head": replace(HEAD, dropout=0.1), "seed": 3, "truth": ~wrong}
    unbroken = collaborate(pairs, **options)  # type: ignore[arg-type]

    def killed(facts: object, heads: object) -> None:
        if len(list(tmp_path.glob("epoch_*.npz"))) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collaborate(pairs, folder=tmp_path, after_epoch=killed, **options)  # type: ignore[arg-type]
    assert len(list(tmp_path.iterdir())) == 3
    (tmp_path / "epoch_004.tmp").write_bytes(b"half a file")  # killed while writing
    trained: list[int] = []
    resumed = collaborate(
        pairs,
        folder=tmp_path,
        after_epoch=lambda facts, _: trained.append(facts.epoch),
        **options,  # type: ignore[arg-type]
    )
    assert trained == [4, 5]
    same(unbroken, resumed)
    same(unbroken, collaborate(pairs, folder=tmp_path, **options))  # type: ignore[arg-type]


def test_the_same_seed_gives_the_same_audit_and_another_seed_another() -> None:
    pairs, _ = noisy(150)
    first, again, other = (collaborate(pairs, noise=0.2, head=HEAD, seed=seed) for seed in (1, 1, 2))
    same(first, again)
    assert not np.array_equal(first.audit.margin, other.audit.margin)


def test_another_runs_state_is_refused(tmp_path: Path) -> None:
    pairs, wrong = noisy(120)
    config = replace(HEAD, epochs=1)
    collaborate(pairs, noise=0.2, head=config, folder=tmp_path)
    for changed in ({"noise": 0.3}, {"seed": 1}, {"head": HEAD}):
        with pytest.raises(ConfigError, match="other data or settings"):
            collaborate(pairs, **({"noise": 0.2, "head": config, "folder": tmp_path} | changed))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="other data or settings"):
        collaborate(pairs.flipped(wrong), noise=0.2, head=config, folder=tmp_path)


def test_verdicts_cover_every_pair_with_a_reason() -> None:
    pairs, _ = noisy(150)
    vectors = pairs.vectors.copy()
    vectors[pairs.rows[4, 1]] = np.nan
    found = collaborate(replace(pairs, vectors=vectors), noise=0.4, head=HEAD).verdicts
    assert found.ids == pairs.ids
    assert found.weight[4] == 0
    assert found.reason[4] == "features are not finite"
    assert found.facts["unusable"] == 1
    assert set(np.unique(found.weight)) <= {0.0, 0.5, 1.0}
    for weight, reason in zip(found.weight, found.reason, strict=True):
        assert (weight == 1) == (reason == "")
    assert found.evidence["times_kept_A"].max() == 5


def test_too_few_pairs_missing_ids_and_doubled_ids() -> None:
    with pytest.raises(DataError, match="49 usable pairs, at least 50"):
        collaborate(planted_pairs(49), noise=0.2)
    pairs = planted_pairs(60)
    with pytest.raises(DataError, match="1 of 60 pairs have no id"):
        replace(pairs, ids=("", *pairs.ids[1:]))
    with pytest.raises(DataError, match="stands for 2 pairs"):
        replace(pairs, ids=(pairs.ids[1], *pairs.ids[1:]))
    with pytest.raises(ConfigError, match=r"\[0, 0.5\)"):
        collaborate(pairs, noise=0.5)


def test_labels_are_turned_towards_the_preferred_response() -> None:
    vectors = np.eye(6, dtype=np.float32)
    rows = np.array([[0, 1, 2], [0, 3, 4], [0, 1, 5]])
    pairs, decided = oriented(["a", "b", "c"], vectors, rows, p=[0.9, 0.2, 0.5])
    assert decided.tolist() == [True, True, False]
    assert pairs.rows.tolist() == [[0, 1, 2], [0, 4, 3]]
    assert pairs.soft_label is not None
    assert pairs.soft_label.tolist() == pytest.approx([0.9, 0.8])
    with pytest.raises(DataError, match="one class only"):
        oriented(["a", "b", "c"], vectors, rows, p=[0.9, 0.8, 0.5])


def test_flipping_twice_changes_nothing_and_taking_follows_the_index() -> None:
    pairs = planted_pairs(60)
    mask = flips(60, 0.5)
    np.testing.assert_array_equal(pairs.flipped(mask).flipped(mask).rows, pairs.rows)
    assert pairs.take([3, 1]).ids == (pairs.ids[3], pairs.ids[1])
    table, turned = Table(pairs), Table(pairs.flipped(np.ones(60, dtype=bool)))
    heads = initial([0], width=pairs.width, hidden=4)
    np.testing.assert_allclose(score_margins(heads, table), -score_margins(heads, turned), atol=1e-6)


def test_heads_survive_being_saved() -> None:
    heads = initial([0, 1], width=4, hidden=3)
    assert torch.equal(from_arrays(heads.arrays()).response, heads.response)
    assert torch.equal(heads.only([1]).out[0], heads.out[1])


def test_the_final_reward_is_the_mean_of_standardized_rewards() -> None:
    pairs, _ = noisy(120)
    found = collaborate(pairs, noise=0.2, head=replace(HEAD, epochs=2))
    chosen, rejected = score(found.heads, Table(pairs))
    rewards = np.concatenate([chosen, rejected], axis=1).astype(np.float64)
    standard = (rewards - rewards.mean(axis=1, keepdims=True)) / rewards.std(axis=1, keepdims=True)
    expected = standard[:, :120].mean(axis=0) - standard[:, 120:].mean(axis=0)
    np.testing.assert_allclose(found.margin(pairs), expected, atol=1e-5)


@pytest.mark.parametrize("wrong", [{"dropout": 1.0}, {"lr": 0.0}, {"loss_noise": 0.5}, {"epochs": 0}])
def test_head_settings_that_make_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        HeadConfig(**wrong)  # type: ignore[arg-type]


def test_stacked_needs_one_row_per_id() -> None:
    with pytest.raises(DataError, match="need rows"):
        stacked(["a"], np.zeros((2, 3)), np.zeros((2, 3)), np.zeros((2, 3)))
