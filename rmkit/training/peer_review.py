"""Collaborative reward modeling in full: two fine-tuned models select training pairs for each other.

The rule is `rmkit.reliability.peer_review`'s. Both models train side by side in one Trainer, each on its own pool in an
order of its own, cut into as many parts as an epoch has steps; a step's loss is the mean over a model's *kept* rows.

    global   after every epoch both models score all pairs in eval mode; the next epoch's pools follow (the default)
    batch    within every step both models score the rows of both first, and each model's batch is cut to its share

With LoRA both adapters sit on one frozen trunk, held in memory once. Gradients are clipped model by model, so that the
two touch each other through the selection alone. Selection and audit are part of every checkpoint; orders depend on
(seed, epoch, model) and margins on weights: a run that was killed and resumed equals an unbroken one.

The models may be policies (`rmkit.training.kinds.implicit`), whose rewards are beta times log-ratios to one frozen
reference: Bradley-Terry on them is DPO, and this is peer review of implicit reward models. Policies that start from the
same weights differ by their orders alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import TrainerCallback, TrainingArguments

from rmkit.errors import ConfigError, DataError
from rmkit.models.transformer.reward_module import RewardModule
from rmkit.plugins import BUILT_IN, resolve
from rmkit.reliability.label_weights import Flags, check_enough, check_noise
from rmkit.reliability.peer_review import (
    ReviewConfig,
    Selection,
    curriculum_order,
    everything,
    keep_in_batch,
    keep_ratio,
    reviewers,
    reviewing,
    select,
    tie_order,
)
from rmkit.reliability.review_audit import AuditLog, ReviewAudit
from rmkit.training.config import TrainingConfig
from rmkit.training.rows import (
    TrainingRow,
)
from rmkit.training.trainer import RewardTrainer, row_losses

WEIGHTS, REVIEW = "peers.safetensors", "peer_review.npz"


def reward_margins(module: Any, rows: Sequence[TrainingRow]) -> Tensor:
    """[B] rewards of the labeled responses minus those of the others."""
    scores = module(module.collate([row.ids for row in rows])).view(-1, 2)
    sign = scores.new_tensor([1.0 if better_first(row) else -1.0 for row in rows])
    margin: Tensor = sign * (scores[:, 0] - scores[:, 1])
    return margin


def better_first(row: TrainingRow) -> bool:
    one = row.preferences[0]
    return (one.p > 0.5) == (one.i == 0)


class Peers(nn.Module):
    """Models A and B. With adapters, B's frozen weights are A's."""

    def __init__(self, first: RewardModule, second: RewardModule) -> None:
        super().__init__()
        self.first, self.second = first, second
        share_frozen_weights(first, second)

    @property
    def both(self) -> tuple[RewardModule, RewardModule]:
        return self.first, self.second

    def plan(self, rows: Sequence[Sequence[Any]], *, max_batch_tokens: int) -> list[list[int]]:
        return self.first.plan(rows, max_batch_tokens=max_batch_tokens)


def share_frozen_weights(first: nn.Module, second: nn.Module) -> int:
    """Let the second module use the first's frozen parameters; how many tensors are shared."""
    known = dict(first.named_parameters())
    frozen = [name for name, weight in second.named_parameters() if not weight.requires_grad]
    for name in frozen:
        parent, _, leaf = name.rpartition(".")
        setattr(second.get_submodule(parent), leaf, known[name])
    return len(frozen)


class PeerTrainer(RewardTrainer):
    """Trains `Peers` on pairs, one preference a row. `noise` is the share of wrong labels; `truth` [rows], where it is
    known, only adds facts to the audit. `history` holds the audit of the finished epochs."""

    def __init__(
        self,
        peers: Peers,
        arguments: TrainingArguments,
        *,
        config: TrainingConfig,
        review: ReviewConfig,
        noise: float,
        rows: Sequence[TrainingRow],
        truth: Flags | None = None,
        on_step: Callable[[float], None] | None = None,
    ) -> None:
        _check(config, review, rows, arguments, noise=noise)
        super().__init__(peers, arguments, config=config, rows=rows, on_step=on_step)  # type: ignore[arg-type]
        self.review, self.noise, self.rows = review, check_noise(noise), list(rows)
        self.steps_per_epoch = math.ceil(len(self.rows) / config.global_batch_size)
        self.history = AuditLog(review.selector, [row.id for row in rows], truth=truth)
        self.tie_order = tie_order([row.id for row in rows])
        self.selection = everything(np.ones(len(rows), dtype=bool))
        self.parts: list[list[NDArray[np.int64]]] = []
        self.add_callback(_Epochs(self))

    def audit(self) -> ReviewAudit:
        return self.history.audit()

    def begin_epoch(self) -> None:
        """The pools of the epoch that begins, and their parts by step; in scope batch they fill as its steps go by."""
        epoch = len(self.history)
        self.selection = self._selected(epoch)
        reviewed = self.review.scope == "global" and self.selection.selected_by[0] != "all"
        everyone = np.arange(len(self.rows))
        pools = [np.flatnonzero(selected) if reviewed else everyone for selected in self.selection.kept]
        orders = [self._order(pool, epoch, model, sort=reviewed) for model, pool in enumerate(pools)]
        self.parts = [np.array_split(order, self.steps_per_epoch) for order in orders]

    def _order(self, pool: NDArray[np.int64], epoch: int, model: int, *, sort: bool) -> NDArray[np.int64]:
        draw = np.random.default_rng([self.config.seed, epoch, model])
        if not (sort and self.review.curriculum):
            return draw.permutation(pool)
        mean = self.history.last_margin.astype(np.float64).mean(axis=0)
        return curriculum_order(
            mean, pool, window=self.review.window_batches * self.config.global_batch_size, generator=draw
        )

    def _selected(self, epoch: int) -> Selection:
        nobody = np.zeros((2, len(self.rows)), dtype=bool)
        if self.review.scope == "batch" and epoch + 1 > self.review.warmup_epochs:
            return Selection(nobody, np.full(nobody.shape, -1), reviewers(self.review.selector))
        if epoch < max(1, self.review.warmup_epochs):
            return everything(np.ones(len(self.rows), dtype=bool))
        ratio = keep_ratio(epoch, self.noise, self.review)
        return select(self.history.last_margin, ratio, tie_order=self.tie_order, config=self.review)

    def end_epoch(self) -> None:
        """Score all pairs with both models and record the epoch."""
        ratio = keep_ratio(len(self.history), self.noise, self.review)
        self.history.add(self.all_margins(), self.selection, keep_ratio=ratio)

    def all_margins(self) -> NDArray[np.float32]:
        """[2, rows] margins of the labeled order in eval mode."""
        return np.stack([self._scored(module, self.rows) for module in self.model.both])

    @torch.no_grad()
    def _scored(self, module: RewardModule, rows: Sequence[TrainingRow]) -> NDArray[np.float32]:
        training = module.training
        module.eval()
        margin = np.empty(len(rows), dtype=np.float32)
        for batch in self.model.plan([row.ids for row in rows], max_batch_tokens=self.max_batch_tokens):
            margin[batch] = reward_margins(module, [rows[at] for at in batch]).float().cpu().numpy()
        module.train(training)
        return margin

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Gradients of both models from their kept rows of the step; the mean of their losses."""
        model.train()
        at = self.state.global_step % self.steps_per_epoch
        learned = self._selection([parts[at] for parts in self.parts])
        losses = [
            self._learn(module, [self.rows[row] for row in mine])
            for module, mine in zip(self.model.both, learned, strict=True)
        ]
        return torch.stack(losses).mean()

    def _selection(self, batches: Sequence[NDArray[np.int64]]) -> Sequence[NDArray[np.int64]]:
        """What each model learns from of its own batch in this step."""
        done = self.state.global_step / self.steps_per_epoch
        if self.review.scope == "global" or self.selection.selected_by[0] == "all":
            return batches
        ratio, learned = keep_ratio(done, self.noise, self.review), []
        for model, batch in enumerate(batches):
            margin = np.stack([self._scored(module, [self.rows[row] for row in batch]) for module in self.model.both])
            deciding = reviewing(margin, self.review.selector)
            mask, rank = keep_in_batch(deciding[model][None], ratio, tie_order_KB=self.tie_order[batch][None])
            self.selection.kept[model, batch], self.selection.rank[model, batch] = mask[0], rank[0]
            learned.append(batch[mask[0]])
        return learned

    def _learn(self, module: RewardModule, rows: Sequence[TrainingRow]) -> Tensor:
        """Gradients of the mean loss over the rows, clipped; the loss."""
        total = torch.zeros((), device=self.args.device)
        for batch in self.model.plan([row.ids for row in rows], max_batch_tokens=self.max_batch_tokens) if rows else []:
            part = [rows[at] for at in batch]
            outputs = module(module.collate([row.ids for row in part]))
            loss = row_losses(outputs, part, self.config, state=self.run_state, module=module).sum() / len(rows)
            if not bool(loss.isfinite()):
                named = ", ".join(rows[at].id for at in batch[:8])
                raise DataError(f"the loss of step {self.state.global_step + 1} is not finite ({named} ...)")
            self.accelerator.backward(loss)
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_([p for p in module.parameters() if p.requires_grad], self.config.max_grad_norm)
        return total

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Trained weights alone (a shared trunk is frozen), the review before them: what has weights can be resumed."""
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / REVIEW, allow_pickle=False, **_stored(self.history))
        learned = {name: p.detach().contiguous() for name, p in self.model.named_parameters() if p.requires_grad}
        save_file(learned, folder / WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        folder = Path(resume_from_checkpoint)
        learned = load_file(folder / WEIGHTS)
        with torch.no_grad():
            for name, weight in self.model.named_parameters():
                if weight.requires_grad:
                    weight.copy_(learned[name])
        with np.load(folder / REVIEW, allow_pickle=False) as stored:
            _restore(self.history, stored)


class _Epochs(TrainerCallback):  # type: ignore[misc]
    def __init__(self, trainer: PeerTrainer) -> None:
        self.trainer = trainer

    def on_epoch_begin(self, *_: Any, **__: Any) -> None:
        self.trainer.begin_epoch()

    def on_epoch_end(self, *_: Any, **__: Any) -> None:
        self.trainer.end_epoch()


def _check(
    config: TrainingConfig,
    review: ReviewConfig,
    rows: Sequence[TrainingRow],
    arguments: TrainingArguments,
    *,
    noise: float,
) -> None:
    if not config.objective.reviewable:
        names = [name for name in BUILT_IN["objectives"] if resolve("objectives", name).reviewable]
        raise ConfigError(f"peer review trains with one of {', '.join(names)}, got {config.objective.name()}")
    if noise and review.scope == "global" and config.num_train_epochs <= max(1, review.warmup_epochs):
        raise ConfigError(
            f"{config.num_train_epochs:g} epochs end before the first selection, which needs the margins after the "
            f"warm-up of {max(1, review.warmup_epochs):g}; take more epochs, or scope batch with warmup_epochs = 0.15"
        )
    if review.scope == "batch" and arguments.save_strategy != "epoch":
        raise ConfigError("scope 'batch' is saved at the ends of epochs only, where its pools are complete")
    if arguments.world_size > 1:
        raise ConfigError(f"peer review runs in one process, got {arguments.world_size}; take LoRA for large models")
    lists = [row.id for row in rows if len(row.ids) != 2 or len(row.preferences) != 1]
    if lists:
        raise DataError(f"peer review takes pairs; {len(lists)} rows have another number of responses ({lists[0]})")
    check_enough(len(rows), what="training pairs")


def _stored(log: AuditLog) -> dict[str, NDArray[Any]]:
    if not len(log):
        return {"epochs": np.zeros(0)}
    audit = log.audit()
    return {
        "margin": audit.margin,
        "kept": audit.kept,
        "rank": audit.rank,
        "selected_by": np.array(audit.selected_by),
        "epochs": np.array([facts.keep_ratio for facts in audit.epochs]),
    }


def _restore(log: AuditLog, stored: Any) -> None:
    for at, ratio in enumerate(stored["epochs"]):
        for_a, for_b = (str(name) for name in stored["selected_by"][at])
        log.add(
            stored["margin"][at],
            Selection(stored["kept"][at], stored["rank"][at], (for_a, for_b)),
            keep_ratio=float(ratio),
        )
