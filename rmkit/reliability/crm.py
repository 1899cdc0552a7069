"""Collaborative reward modeling, fast form: two heads on cached features select training pairs for each other.

The rule is `peer_review`'s; here it drives two stacked heads, so that whole epochs over 100,000 pairs take seconds. The
run can be killed after any epoch and goes on from `folder`, bit for bit; same seed (and threads), same audit.

For a use of the models, `standardized_mean` adds the two rewards after each was scaled to mean 0 and deviation 1 over
the training responses. As a filter, a pair's weight is the share of the two models that learned from it in the last
epoch: 0, 1/2 or 1.

arXiv:2505.10597. Selecting by the model's own margin (`self`) did as well as by the peer's within 0.2 to 0.7 points.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rmkit.atomic import draft_file
from rmkit.errors import ConfigError
from rmkit.heads.stacked import StackedHeads, Table, margins, score, score_margins
from rmkit.heads.stacked_training import HeadConfig, Index, Trainer
from rmkit.ids import digest
from rmkit.reliability.ensemble import RewardScale, reward_scale
from rmkit.reliability.feature_pairs import FeaturePairs
from rmkit.reliability.label_weights import Flags, LabelWeights, check_enough, check_noise, reasons
from rmkit.reliability.peer_review import (
    MODELS,
    ReviewConfig,
    Selection,
    Selector,
    curriculum_order,
    everything,
    keep_in_batch,
    keep_ratio,
    reviewers,
    select,
    tie_order,
)
from rmkit.reliability.review_audit import AuditLog, EpochFacts, ReviewAudit

STATE = "epoch_{:03d}.npz"


@dataclass(frozen=True, slots=True)
class Collaboration:
    """The two heads, the scale on which their rewards are averaged, the audit and the decision about each pair."""

    heads: StackedHeads
    scale: RewardScale
    audit: ReviewAudit
    verdicts: LabelWeights

    def margin(self, pairs: FeaturePairs) -> NDArray[np.float64]:
        """[n] margin of the mean of both models' standardized rewards."""
        margin: NDArray[np.float64] = (score_margins(self.heads, Table(pairs)) / self.scale.std[:, None]).mean(axis=0)
        return margin


def collaborate(
    pairs: FeaturePairs,
    *,
    noise: float,
    review: ReviewConfig | None = None,
    head: HeadConfig | None = None,
    seed: int = 0,
    truth: Flags | None = None,
    folder: Path | None = None,
    after_epoch: Callable[[EpochFacts, StackedHeads], None] | None = None,
) -> Collaboration:
    """Train both heads for `head.epochs` epochs under peer review with the noise prior `noise`.

    `truth` [n] (which labels are right) only adds facts to the audit. With a `folder`, finished epochs are stored there
    and a run with the same input goes on after the last one; another input is refused with ConfigError. Pairs with
    features that are not finite are left out, counted and told in the verdicts. Raises DataError below 50 pairs.
    """
    review, head = review or ReviewConfig(), head or HeadConfig()
    check_noise(noise)
    usable = pairs.finite
    check_enough(int(usable.sum()))
    run = _Run(
        pairs.take(usable), noise, review, head, seed=seed, truth=None if truth is None else np.asarray(truth)[usable]
    )
    if folder is not None:
        run.resume(folder)
    for epoch in range(len(run.log), head.epochs):
        facts = run.epoch(epoch)
        if folder is not None:
            run.save(folder)
        if after_epoch is not None:
            after_epoch(facts, run.trainer.heads)
    return run.finished(pairs, usable)


class _Run:
    """The state between two epochs: heads, optimizer and the audit so far."""

    def __init__(
        self,
        pairs: FeaturePairs,
        noise: float,
        review: ReviewConfig,
        head: HeadConfig,
        *,
        seed: int,
        truth: Flags | None,
    ) -> None:
        self.pairs, self.noise, self.review, self.seed = pairs, noise, review, seed
        self.trainer = Trainer(pairs, head, seeds=(2 * seed, 2 * seed + 1))
        self.log = AuditLog(review.selector, pairs.ids, truth=truth)
        self.tie_order = tie_order(pairs.ids)
        self.rewards: NDArray[np.float32] | None = None

    def epoch(self, epoch: int) -> EpochFacts:
        ratio = keep_ratio(epoch, self.noise, self.review)
        if epoch < self.review.warmup_epochs or (self.review.scope == "global" and not len(self.log)):
            selection = everything(np.ones(len(self.pairs), dtype=bool))
            self.trainer.epoch(epoch, self._order(epoch, selection))
        elif self.review.scope == "global":
            selection = select(self.log.last_margin, ratio, tie_order=self.tie_order, config=self.review)
            self.trainer.epoch(epoch, self._order(epoch, selection))
        else:
            selection = self._review_batches(epoch, ratio)
        self.rewards = np.stack(score(self.trainer.heads, self.trainer.table))
        return self.log.add(self.rewards[0] - self.rewards[1], selection, keep_ratio=ratio)

    def _order(self, epoch: int, selection: Selection) -> list[Index]:
        pools = [np.flatnonzero(selected) for selected in selection.kept]
        if not self.review.curriculum or selection.selected_by[0] == "all":
            return self.trainer.order(epoch, pools)
        mean = self.log.last_margin.astype(np.float64).mean(axis=0)
        window = self.review.window_batches * self.trainer.config.batch_pairs
        return [
            curriculum_order(mean, pool, window=window, generator=np.random.default_rng([seed, epoch]))
            for seed, pool in zip(self.trainer.seeds, pools, strict=True)
        ]

    def _review_batches(self, epoch: int, ratio: float) -> Selection:
        """One epoch of the paper's form: every batch is reviewed with the weights of its own step."""
        n, heads = len(self.pairs), self.trainer.heads
        values = np.zeros((2, n), dtype=bool)
        rank = np.full((2, n), -1, dtype=np.int64)

        def keep(index_KB: torch.Tensor, prompt: torch.Tensor, responses: torch.Tensor) -> torch.Tensor:
            index = index_KB.numpy()
            deciding = np.where(index >= 0, _deciding(heads, prompt, responses, selector=self.review.selector), np.nan)
            mask, place = keep_in_batch(deciding, ratio, tie_order_KB=self.tie_order[index])
            for model in range(2):
                real = index[model] >= 0
                values[model, index[model][real]] = mask[model][real]
                rank[model, index[model][real]] = place[model][real]
            return torch.from_numpy(mask).float()

        self.trainer.epoch(epoch, self.trainer.order(epoch, [np.arange(n)] * 2), keep=keep)
        return Selection(values, rank, reviewers(self.review.selector))

    @cached_property
    def identity(self) -> str:
        """Digest of everything that decides the run, so that nobody goes on with another one's state."""
        answers = [asdict(self.review), asdict(self.trainer.config), self.noise, self.seed]
        data = [array.tobytes() for array in (self.pairs.rows, self.pairs.vectors) if array is not None]
        labels = [b"" if x is None else x.tobytes() for x in (self.pairs.soft_label, self.pairs.weight)]
        hashes = [hashlib.sha256(part).hexdigest() for part in (*data, *labels)]
        return digest([json.dumps(answers, sort_keys=True), *hashes, *self.pairs.ids])

    def save(self, folder: Path) -> None:
        """Write the newest epoch: its part of the audit, and the weights and moments to go on from."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / STATE.format(len(self.log))
        margin, selection, ratio = self.log.newest
        state: dict[str, Any] = {
            "identity": np.array(self.identity),
            "margin": margin,
            "kept": selection.kept,
            "rank": selection.rank.astype(np.int32),
            "selected_by": np.array(selection.selected_by),
            "keep_ratio": np.array(ratio),
            **self.trainer.state(),
        }
        with draft_file(path) as draft, draft.open("wb") as file:
            np.savez(file, **state)

    def resume(self, folder: Path) -> None:
        """Take up the stored epochs in order. Raises ConfigError where they are of another run."""
        while (path := folder / STATE.format(len(self.log) + 1)).is_file() and len(
            self.log
        ) < self.trainer.config.epochs:
            with np.load(path, allow_pickle=False) as stored:
                if str(stored["identity"]) != self.identity:
                    raise ConfigError(f"{path} is of a run with other data or settings; choose another folder")
                for_a, for_b = (str(name) for name in stored["selected_by"])
                selection = Selection(stored["kept"], stored["rank"].astype(np.int64), (for_a, for_b))
                self.log.add(stored["margin"], selection, keep_ratio=float(stored["keep_ratio"]))
                self.trainer.restore({name: stored[name] for name in stored.files})

    def finished(self, pairs: FeaturePairs, usable: Flags) -> Collaboration:
        heads = self.trainer.heads.only(range(2))
        rewards = np.stack(score(heads, self.trainer.table)) if self.rewards is None else self.rewards
        scale = reward_scale(np.concatenate(list(rewards), axis=1))
        audit = self.log.audit()
        return Collaboration(heads, scale, audit, _verdicts(pairs, usable, audit))


def _deciding(
    heads: StackedHeads, prompt: torch.Tensor, responses: torch.Tensor, *, selector: Selector
) -> NDArray[np.float32]:
    """[2, B] margins that decide about A's and B's batch, in eval mode."""
    swapped = StackedHeads(**{name: tensor.flip(0) for name, tensor in heads.tensors.items()})
    with torch.no_grad():
        own, other = (margins(models, prompt, responses).numpy() for models in (heads, swapped))
    deciding: dict[Selector, NDArray[np.float32]] = {"peer": other, "self": own, "mean": (own + other) / 2}
    return deciding[selector]


def _verdicts(pairs: FeaturePairs, usable: Flags, audit: ReviewAudit) -> LabelWeights:
    """The last epoch's selection as weights over all pairs, the unusable ones included."""

    def spread(values: NDArray[Any], fill: float) -> NDArray[Any]:
        whole = np.full(len(pairs), fill, dtype=values.dtype)
        whole[usable] = values
        return whole

    last = audit.kept[-1]
    kept_a, kept_b = (spread(one, False) for one in last)
    summary = {
        "features are not finite": ~usable,
        "neither model learned from it in the last epoch": ~kept_a & ~kept_b,
        "only model A learned from it in the last epoch": ~kept_b,
        "only model B learned from it in the last epoch": ~kept_a,
    }
    evidence = {f"margin_{name}": spread(one, np.nan) for name, one in zip(MODELS, audit.margin[-1], strict=True)}
    times = {f"times_kept_{name}": spread(one, 0) for name, one in zip(MODELS, audit.times_kept[-1], strict=True)}
    return LabelWeights(
        method=audit.method,
        ids=pairs.ids,
        weight=(kept_a.astype(np.float64) + kept_b) / 2,
        reason=reasons(len(pairs), summary),
        evidence=evidence | times,
        facts={"unusable": int((~usable).sum()), "epochs": audit.facts()},
    )
