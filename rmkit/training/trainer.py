"""transformers' Trainer, with a step that loops over token-budget micro-batches and a validation of its own.

One batch of the dataloader is one optimizer step: a fixed number of rows, drawn as the Trainer draws them. The step's
loss is the mean over its rows, so its gradient does not depend on how it is cut. A loss that is not finite stops the
run and names the rows; running out of memory halves the token budget and repeats the step.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import AutocastKwargs  # type: ignore[import-untyped]
from torch import nn
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer import SCHEDULER_NAME

from rmkit.errors import ConfigError, DataError
from rmkit.models.transformer.packing import Batch
from rmkit.models.transformer.rating_head import RatingHead
from rmkit.models.transformer.reward_module import RewardModule
from rmkit.training import checkpoints
from rmkit.training.config import TrainingConfig
from rmkit.training.kinds import kind_of
from rmkit.training.objectives.objective import RunState
from rmkit.training.rows import (
    TrainingRow,
    Validation,
)
from rmkit.training.validation import ALONE, Processes, logged, reads_of, validate

SHARES = "shares"  # folder of a checkpoint
USABLE = 0.8  # of a GPU's memory, for weights that are to be run

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StepRows:
    """The rows of one optimizer step; a class of its own, so that nobody walks through its ids."""

    rows: tuple[TrainingRow, ...]


class WithLearned(nn.Module):
    """A reward module and the numbers that its objective learns beside it, trained as one."""

    def __init__(self, module: RewardModule, learned: nn.ParameterDict) -> None:
        super().__init__()
        self.learned = learned
        self.reward = module
        self.plan, self.collate = module.plan, module.collate

    def forward(self, batch: Batch) -> torch.Tensor:
        outputs: torch.Tensor = self.reward(batch)
        for number in self.learned.parameters():  # the loss reads them; DDP looks for them in this pass
            outputs = outputs + 0 * number.sum()
        return outputs


def row_losses(
    outputs: torch.Tensor,
    rows: Sequence[TrainingRow],
    config: TrainingConfig,
    *,
    state: RunState | None = None,
    module: Any = None,
) -> torch.Tensor:
    """[B] weighted losses of the rows: the objective's, and what the kind of model adds (`module` is read for it)."""
    state = state or RunState(reward_scale=config.reward_scale)
    loss_B = config.objective.losses(outputs, rows, state)
    if (added_B := kind_of(config).added_losses(outputs, rows, config, module)) is not None:
        loss_B = loss_B + added_B
    return loss_B * outputs.new_tensor([row.weight for row in rows])


class RewardTrainer(Trainer):  # type: ignore[misc]
    """`validation` rows score the module; `validated` holds the latest result in full, `run_state` what the objective
    has learned beside the module."""

    def __init__(
        self,
        module: RewardModule,
        arguments: TrainingArguments,
        *,
        config: TrainingConfig,
        rows: Sequence[TrainingRow],
        validation: Sequence[TrainingRow] = (),
        head: RatingHead | None = None,
        on_step: Callable[[float], None] | None = None,
    ) -> None:
        learned = config.objective.learned(head)
        super().__init__(
            model=module if learned is None else WithLearned(module, learned),
            args=arguments,
            train_dataset=rows,
            eval_dataset=validation or None,
            data_collator=lambda drawn: {"step": StepRows(tuple(drawn))},
        )
        if self.shards and learned is not None:
            raise ConfigError(
                f"the objective {config.objective.name()} learns numbers beside the model, which FSDP and DeepSpeed "
                "cannot hold; train it on one device or with sharding = 'none' (DDP)"
            )
        if self.shards and len({module.pass_key(length) for length in range(1, config.max_length + 1)}) > 1:
            raise ConfigError(
                f"{type(module.classifier).__name__} reads texts of different lengths in different passes (its rotary "
                "frequencies or its head depend on them), and under FSDP or DeepSpeed all processes must make the same "
                "passes; train it on one device or with sharding = 'none' (DDP) or lower max_length to where it changes"
            )
        _keep_the_head_in_fp32(self)
        # each weight is used once a pass: a cache of bf16 copies would hold all of them until the pass ends
        self.accelerator.autocast_handler = AutocastKwargs(cache_enabled=False)
        self.config = config
        self.module = module
        self.run_state = RunState(head, learned, config.reward_scale)
        self.max_batch_tokens = config.max_batch_tokens
        self.validation = validation
        self.validated: Validation | None = None
        for chatty in (PrinterCallback, ProgressCallback):  # stdout is for results
            self.remove_callback(chatty)
        if config.save_steps:
            self.add_callback(_SaveEvery(config.save_steps))
        if on_step is not None:
            self.add_callback(_OnStep(on_step))

    @property
    def shards(self) -> bool:
        """Whether weights are spread over processes (FSDP, DeepSpeed)."""
        return bool(self.is_fsdp_enabled or self.is_deepspeed_enabled)

    def fits_one_device(self) -> bool:
        """Whether one device could hold the module in fp32; of several GPUs all must be alike."""
        if not self.shards or self.args.device.type == "cpu":
            return True
        size = 4 * sum(weight.numel() for weight in self.module.parameters())
        return size < USABLE * torch.cuda.get_device_properties(self.args.device).total_memory

    def whole(self, rebuild: Callable[[], RewardModule]) -> RewardModule:
        """The trained module in one piece. Where weights are sharded, all processes must call this; the first gets a
        rebuilt module with them, on the CPU if no device can hold it, the others their own back."""
        if not self.shards:
            return self.module
        state = self.accelerator.get_state_dict(self.model_wrapped)
        if not self.is_world_process_zero():
            return self.module
        result = rebuild()
        result.load_state_dict(state)
        return result.to(self.args.device if self.fits_one_device() else "cpu")

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Under FSDP only the folder: what is in it comes later, and the Trainer takes a checkpoint for the best one
        where its folder is seen at this point, which must be so in all processes."""
        if self.is_fsdp_enabled:
            os.makedirs(output_dir or self.args.output_dir, exist_ok=True)
        else:
            super().save_model(output_dir, _internal_call)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        super()._save(output_dir, checkpoints.trained(self.model, state_dict or self.model.state_dict()))

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        checkpoints.require_trained(self.model, load_result)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """Under FSDP the weights too, by shares: brought together they may fit into no process."""
        if not self.is_fsdp_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        checkpoints.save_shares(self.model, self.optimizer.optimizer, os.path.join(output_dir, SHARES))
        if self.args.should_save:
            torch.save(self.lr_scheduler.state_dict(), os.path.join(output_dir, SCHEDULER_NAME))

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()  # what says that a checkpoint is whole is written next, by the first alone

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self.is_fsdp_enabled:
            folder = os.path.join(resume_from_checkpoint, SHARES)
            checkpoints.load_shares(self.model, self.optimizer.optimizer, folder)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or not self.is_fsdp_enabled:
            super()._load_optimizer_and_scheduler(checkpoint)
        else:
            state = torch.load(os.path.join(checkpoint, SCHEDULER_NAME), weights_only=True)
            self.lr_scheduler.load_state_dict(state)

    def _load_best_model(self) -> None:
        if self.is_fsdp_enabled:
            self._load_from_checkpoint(self.state.best_model_checkpoint)
        else:
            super()._load_best_model()

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Gradients of one optimizer step; the mean loss over its rows."""
        model.train()
        rows = inputs["step"].rows
        while True:
            try:
                return self._accumulate(model, rows)
            except torch.OutOfMemoryError:
                longest = max(sum(len(ids) for ids in row.ids) for row in rows)
                if self.shards or self.max_batch_tokens <= longest:  # sharded: the others would wait for ever
                    raise
                model.zero_grad()
                self.max_batch_tokens //= 2
                log.warning("out of memory: going on with %d tokens a micro-batch", self.max_batch_tokens)

    def _accumulate(self, model: Any, rows: Sequence[TrainingRow]) -> torch.Tensor:
        total = torch.zeros((), device=self.args.device)
        batches = self.model.plan([row.ids for row in rows], max_batch_tokens=self.max_batch_tokens)
        idle = self._most_micro_batches(len(batches)) - len(batches)
        for number, batch in enumerate([batches[-1]] * idle + batches):
            part = [rows[position] for position in batch]
            last = number == idle + len(batches) - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(model):
                self.accelerator.sync_gradients = last  # DeepSpeed takes its step in the backward pass that has it set
                outputs = model(self.model.collate([row.ids for row in part], reads=reads_of(part)))
                loss_B = row_losses(outputs, part, self.config, state=self.run_state, module=self.module)
                _stop_unless_finite(loss_B, part, step=self.state.global_step)
                loss = loss_B.sum() / len(rows) * (number >= idle)
                self.accelerator.backward(loss)
            total += loss.detach()
        return total

    def _most_micro_batches(self, n: int) -> int:
        """The largest count among the processes. Sharded layers are gathered in every pass, so that all must make the
        same number of passes or wait for each other for ever; those short of it make some that count nothing."""
        if not self.shards:
            return n
        counts: torch.Tensor = self.accelerator.gather(torch.tensor([n], device=self.args.device))
        return int(counts.max())

    def evaluate(self, *_: Any, metric_key_prefix: str = "eval", **__: Any) -> dict[str, float]:
        """Validation numbers with the prefix, as logged; every process computes its share of the rows."""
        n = self.args.world_size
        self.validated = validate(
            self.model,
            self.validation,
            max_batch_tokens=self.max_batch_tokens,
            objective=self.config.objective,
            state=self.run_state,
            processes=ALONE if n == 1 else Processes(self.args.process_index, n, self._most_micro_batches, _gathered),
        )
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in logged(self.validated.facts).items()}
        self.log(metrics)
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: the Trainer would take it from a padded batch."""
        return 0


def _gathered(own: Any) -> list[Any]:
    """The objects of all processes."""
    everyone: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(everyone, own)
    return everyone


def _keep_the_head_in_fp32(trainer: Trainer) -> None:
    """Autocast computes in bf16. What accelerate would have FSDP or DeepSpeed do rounds the weights as well, and with
    them the score head and its outputs."""
    if trainer.is_deepspeed_enabled and trainer.accelerator.mixed_precision != "no":
        raise ConfigError(
            "DeepSpeed turns all weights into bf16, the score head too, and rewards would tie; train with "
            "precision = 'fp32' and mixed_precision: 'no', or take sharding = 'fsdp2'"
        )
    if trainer.is_fsdp_enabled:
        from torch.distributed.fsdp import MixedPrecisionPolicy

        trainer.accelerator.state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy()


class _OnStep(TrainerCallback):  # type: ignore[misc]
    def __init__(self, advance: Callable[[float], None]) -> None:
        self.advance = advance

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.advance(1)


class _SaveEvery(TrainerCallback):  # type: ignore[misc]
    """Checkpoints beside those of evaluations; the Trainer itself would write them at multiples of these alone."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_save |= state.global_step % self.steps == 0


def _stop_unless_finite(loss_B: torch.Tensor, rows: Sequence[TrainingRow], *, step: int) -> None:
    finite = loss_B.isfinite()
    if not bool(finite.all()):
        bad = [row.id for row, fine in zip(rows, finite.tolist(), strict=True) if not fine]
        batch = [row.id for row in rows]
        raise DataError(
            f"the loss of step {step + 1} is not finite for {len(bad)} rows ({', '.join(bad[:8])}); the micro-batch "
            f"was {', '.join(batch[:32])}; look at them with: rmkit why ID, or lower learning_rate"
        )
