"""TRL's trainers for the three stages: SFT on the reply alone, DPO with NLL on the chosen, GRPO with both orders."""

from __future__ import annotations

import importlib
import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_pipelines.judge.data.folder import Row
from data_pipelines.judge.training.config import EPOCHS, LEARNING_RATE, JudgeTrainingConfig, Stage
from data_pipelines.judge.training.reward import BothOrders
from rmkit.errors import DataError, MissingExtraError, ModelError

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer

COLUMNS = {
    "sft": ("prompt", "completion"),
    "dpo": ("prompt", "chosen", "rejected"),
    "grpo": ("prompt", "id", "order", "verdict"),
}


def load_base(base: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Causal model (fp32) and tokenizer of a folder or hub name. Raises ModelError where there is none, or no
    chat template.
    """
    try:
        from rmkit.models.transformer.pretrained import load_pretrained, load_tokenizer
    except ImportError as error:
        raise MissingExtraError("transformers", "train") from error
    tokenizer = load_tokenizer(base)
    model = load_pretrained("AutoModelForCausalLM", base, dtype="float32").model
    if not tokenizer.chat_template:
        raise ModelError(f"{base} has no chat template; give its tokenizer one (tokenizer.chat_template)")
    return model, tokenizer


def usable(
    rows: Sequence[Row], stage: Stage, *, tokenizer: Any, config: JudgeTrainingConfig
) -> tuple[list[Row], dict[str, int]]:
    """The rows that this stage can train on, and those left out by reason. Raises DataError where none is left."""
    dropped: Counter[str] = Counter()
    rows_in_reach = []
    for row in rows:
        missing = [key for key in COLUMNS[stage] if row.get(key) is None]
        if missing:
            dropped[f"no {' and '.join(missing)}"] += 1
        elif _tokens(row, stage, tokenizer, config) > config.max_length:
            dropped["longer than max_length"] += 1
        else:
            rows_in_reach.append(row)
    if not rows_in_reach:
        raise DataError(f"no row can train the stage {stage}: {dict(dropped)}; build data for it with rmkit judge-data")
    return rows_in_reach, dict(dropped)


def _tokens(row: Row, stage: Stage, tokenizer: Any, config: JudgeTrainingConfig) -> int:
    def length(messages: Any, **options: Any) -> int:
        return len(tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False, **options))

    if stage == "grpo":
        return length(row["prompt"], add_generation_prompt=True) + config.reply_tokens
    replies = [row[key] for key in ("completion", "chosen", "rejected") if row.get(key)]
    return max(length([*row["prompt"], *reply]) for reply in replies)


def trainer_of(
    stage: Stage, model: Any, tokenizer: Any, rows: Sequence[Row], *, config: JudgeTrainingConfig, run: Path
) -> Trainer:
    """TRL's trainer, ready to train; its output folder is `run`. Raises MissingExtraError without trl."""
    try:
        trl: Any = importlib.import_module("trl")
        from datasets import Dataset
    except ImportError as error:
        raise MissingExtraError("trl", "train") from error
    common = _common(stage, config, len(rows), run) | {"max_length": config.max_length}
    columns = {"model": model, "processing_class": tokenizer, "peft_config": _adapters(config)}
    data = Dataset.from_list([{key: row[key] for key in COLUMNS[stage]} for row in rows])
    match stage:
        case "sft":
            result = trl.SFTConfig(completion_only_loss=True, **common)
            return trl.SFTTrainer(args=result, train_dataset=data, **columns)
        case "dpo":
            loss = (
                {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, config.nll_weight]} if config.nll_weight else {}
            )
            result = trl.DPOConfig(beta=config.beta, **loss, **common)
            return trl.DPOTrainer(args=result, train_dataset=data, **columns)
        case "grpo":
            return _grpo(trl, columns, rows, config, {k: v for k, v in common.items() if k != "max_length"})


def _grpo(
    trl: Any, columns: Mapping[str, Any], rows: Sequence[Row], config: JudgeTrainingConfig, common: Any
) -> Trainer:
    from datasets import Dataset

    result = trl.GRPOConfig(
        num_generations=config.generations,
        max_completion_length=config.reply_tokens,
        temperature=config.temperature,
        beta=config.kl,
        shuffle_dataset=False,  # TRL would tear the two orders apart; they are shuffled together here
        **common | {"num_train_epochs": 1},
    )
    model = columns["model"]
    ends = [columns["processing_class"].eos_token_id, *_listed(model.generation_config.eos_token_id)]
    data = Dataset.from_list(together(rows, epochs=config.num_train_epochs or EPOCHS["grpo"], seed=config.seed))
    reward = BothOrders([end for end in ends if end is not None])
    return trl.GRPOTrainer(args=result, reward_funcs=reward, train_dataset=data, **columns)


def together(rows: Sequence[Row], *, epochs: float, seed: int) -> list[Row]:
    """Rows in chance order, anew each epoch, the two orders of an item always side by side and at an even place.

    `paired` says which rows have a twin; those without one come at the end of each epoch.
    """
    items: dict[str, list[Row]] = {}
    for row in rows:
        items.setdefault(row["id"], []).append({key: row[key] for key in COLUMNS["grpo"]})
    draw = random.Random(seed)
    results: list[Row] = []
    for _ in range(math.ceil(epochs)):
        twins = [group for group in items.values() if len(group) == 2]
        alone = [[row] for group in items.values() if len(group) != 2 for row in group]
        draw.shuffle(twins)
        draw.shuffle(alone)
        alone = alone[: len(alone) // 2 * 2]  # an odd one would shift every later pair across a batch
        results += [row | {"paired": len(group) == 2} for group in [*twins, *alone] for row in group]
    return results[: round(len(results) * epochs / math.ceil(epochs)) // 2 * 2]


def _common(stage: Stage, config: JudgeTrainingConfig, n_rows: int, run: Path) -> dict[str, object]:
    """Arguments that every Hugging Face trainer takes."""
    import torch

    at_once = config.at_once(stage)
    whole = config.global_batch_size * (config.generations if stage == "grpo" else 1)
    epochs = config.num_train_epochs or EPOCHS[stage]
    steps = config.steps or math.ceil(n_rows / config.global_batch_size * epochs)
    return {
        "output_dir": str(run),
        "learning_rate": config.learning_rate or LEARNING_RATE[stage],
        "num_train_epochs": epochs,
        "max_steps": config.steps or -1,
        "lr_scheduler_type": config.lr_scheduler_type,
        "warmup_steps": math.ceil(config.warmup_ratio * steps),
        "weight_decay": config.weight_decay,
        "per_device_train_batch_size": at_once,
        "gradient_accumulation_steps": whole // at_once,
        "bf16": config.precision == "bf16" or (config.precision == "auto" and torch.cuda.is_available()),
        "use_cpu": not torch.cuda.is_available(),
        "gradient_checkpointing": config.gradient_checkpointing,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "seed": config.seed,
    }


def _adapters(config: JudgeTrainingConfig) -> LoraConfig | None:
    if not config.lora_rank:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=config.lora_rank, lora_alpha=2 * config.lora_rank, target_modules="all-linear", task_type="CAUSAL_LM"
    )


def _listed(value: Any) -> list[int]:
    return list(value) if isinstance(value, list) else [value]
