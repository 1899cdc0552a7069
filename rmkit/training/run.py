"""One run of transformers' Trainer: where its checkpoints lie, whether it may go on, what the Trainer is told."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rmkit import paths
from rmkit.atomic import write_text
from rmkit.config import read_object
from rmkit.errors import ConfigError, UsageError, require
from rmkit.models.artifact.folder import CARD
from rmkit.training.config import TrainingConfig

if TYPE_CHECKING:
    from transformers import TrainingArguments

Resume = bool | Literal["auto"]


def is_main_process() -> bool:
    """Whether this process tells and saves: the only one, or the first of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def run_folder(target: Path) -> Path:
    """Where the checkpoints of the artifact to be lie while it is trained."""
    return paths.home() / "runs" / f"explicit-{target.name}"


def finished(place: Path, settings: TrainingConfig, dataset: Mapping[str, Any]) -> dict[str, Any] | None:
    """The card of the artifact there, where it was made with these settings from this data; else None."""
    if not (place / CARD).is_file():
        return None
    card = read_object(place / CARD, raises=ConfigError, hint="name another folder with -o, or use --restart")
    document = json.loads(json.dumps({"settings": settings.as_json(), "dataset": dataset}))
    stored = {"settings": card.get("training", {}).get("settings"), "dataset": card.get("dataset")}
    return card if stored == document else None


def prepare_run_dir(run: Path, answers: Mapping[str, Any], *, resume: Resume, restart: bool) -> str | None:
    """Make the run folder ready; the checkpoint to go on from, None for a new run. `answers` are settings and data.
    With `resume="auto"` a run without a checkpoint begins anew.

    Raises rather than go on from the checkpoint of another run: UsageError, ConfigError.
    """
    if not is_main_process():
        return last_checkpoint(run) if resume else None
    if restart:
        shutil.rmtree(run, ignore_errors=True)
    summary = run / "settings.json"
    document = json.loads(json.dumps(answers))
    result = last_checkpoint(run)
    if resume is True and result is None:
        raise UsageError(f"nothing to resume: {run} holds no checkpoint; run without --resume")
    if resume and result and read_object(summary, raises=ConfigError, hint="use --restart") != document:
        raise ConfigError(f"{run} was started with other settings or data; repeat those, or use --restart")
    if result and not resume:
        raise UsageError(f"an interrupted run lies in {run}; go on with --resume or begin anew with --restart")
    run.mkdir(parents=True, exist_ok=True)
    write_text(summary, json.dumps(document, indent=2) + "\n")
    return result


def last_checkpoint(run: Path) -> str | None:
    """The newest checkpoint that is whole; None where there is none. A kill may leave a newer one half written."""
    from transformers.trainer import TRAINER_STATE_NAME

    for path in sorted(run.glob("checkpoint-*"), key=lambda one: -int(one.name.split("-")[1])):
        with contextlib.suppress(OSError, ValueError):
            json.loads((path / TRAINER_STATE_NAME).read_text())  # what the Trainer writes last
            return str(path)
    return None


def steps(settings: TrainingConfig, n_rows: int) -> int:
    return math.ceil(math.ceil(n_rows / settings.global_batch_size) * settings.num_train_epochs)


def arguments(settings: TrainingConfig, *, n_rows: int, run: Path) -> TrainingArguments:
    """The Trainer's own arguments: one batch is one step. Checkpoints are written where validation is; those of
    `save_steps` are added by the trainer."""
    import torch
    from transformers import TrainingArguments

    if "8bit" in settings.optim:
        require("bitsandbytes", extra="gpu")
        if not torch.cuda.is_available():
            raise ConfigError(
                f"optim = {settings.optim!r} needs a CUDA GPU and none is visible; take adamw_torch_fused"
            )
    steps_per_epoch = math.ceil(n_rows / settings.global_batch_size)
    every = max(1, steps_per_epoch // settings.evaluations_per_epoch)
    result = TrainingArguments(
        output_dir=str(run),
        num_train_epochs=settings.num_train_epochs,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.lr_scheduler_type,
        warmup_steps=math.ceil(settings.warmup_ratio * steps(settings, n_rows)),
        weight_decay=settings.weight_decay,
        optim=settings.optim,
        max_grad_norm=settings.max_grad_norm,
        per_device_train_batch_size=settings.global_batch_size,
        bf16=settings.precision == "bf16",
        use_cpu=not torch.cuda.is_available(),
        logging_steps=1,
        logging_nan_inf_filter=False,
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model=settings.objective.selects_by,
        greater_is_better=False,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        report_to=list(settings.report_to) or "none",
        # by transformers' defaults each layer is a unit; weights are not brought together for a checkpoint
        fsdp=settings.sharding == "fsdp2" and int(os.environ.get("WORLD_SIZE", "1")) > 1,
        fsdp_config={"version": 2, "state_dict_type": "SHARDED_STATE_DICT"},
        seed=settings.seed,
        disable_tqdm=True,
    )
    if settings.global_batch_size % result.world_size:
        raise ConfigError(
            f"global_batch_size {settings.global_batch_size} must divide among {result.world_size} processes"
        )
    if result.fsdp and result.use_cpu:
        _shard_on_processors()
    result.per_device_train_batch_size = settings.global_batch_size // result.world_size
    return result


def _shard_on_processors() -> None:
    """accelerate 1.15 shards where processes have an accelerator each, and makes DDP of the same arguments on CPUs,
    without a word; nothing else in its path asks what kind of device it is."""
    from accelerate.state import PartialState  # type: ignore[import-untyped]
    from accelerate.utils import DistributedType  # type: ignore[import-untyped]

    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
