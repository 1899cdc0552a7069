"""The arms of `rmkit bench training`: each a process of its own that trains on the same pairs and measures itself."""

from __future__ import annotations

import importlib
import json
import resource
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.benchmarks.memory import peak_bytes
from rmkit.errors import DataError

PEERS = ("trl", "trl_grouped")
OURS = ("rmkit", "head", "bucketed", "budget", "prefix", "packed")
PRELOADED = (
    "trl.trainer.reward_trainer",
    "transformers.models.qwen3.modeling_qwen3",
    "rmkit.training.trainer",
    "rmkit.training.kinds.explicit",
    "rmkit.training.data",
)


def measure(spec: Mapping[str, Any]) -> dict[str, object]:
    """What arm `spec["arm"]` took: seconds, CPU seconds, memory, tokens and the loss of every step."""
    import torch
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.simplefilter("ignore", FutureWarning)
    if spec["threads"]:
        torch.set_num_threads(spec["threads"])
    run = _trl if spec["arm"] in PEERS else _rmkit
    pairs = json.loads((Path(spec["folder"]) / "pairs.json").read_text())
    return run(spec, pairs)


class _Meter:
    """Seconds since the raw pairs, and resident memory before and at most during the training."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.cpu_start = time.process_time()
        self.before = _resident()
        self.peak = self.before
        self._stop = threading.Event()
        self._watch = threading.Thread(target=self._sample, daemon=True)
        self._watch.start()

    def _sample(self) -> None:
        while not self._stop.wait(0.02):
            self.peak = max(self.peak, _resident())

    def result(self, trainer: Any, *, n: int, tokens: int, train_s: float) -> dict[str, object]:
        seconds = time.perf_counter() - self.start
        self._stop.set()
        self._watch.join()
        return {
            "pairs_per_s": n / seconds,
            "seconds": seconds,
            "cpu_s": time.process_time() - self.cpu_start,
            "train_s": train_s,
            "tokens": tokens,
            "peak_mb": peak_bytes() / 2**20,
            "rise_mb": (self.peak - self.before) / 2**20,
            "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        }


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def _common(spec: Mapping[str, Any]) -> dict[str, object]:
    import torch

    return {
        "output_dir": str(Path(spec["folder"]) / "out"),
        "num_train_epochs": 1,
        "learning_rate": 1e-4,
        "lr_scheduler_type": "constant",
        "per_device_train_batch_size": spec["global_batch_size"],
        "bf16": spec["precision"] == "bf16",
        "use_cpu": not torch.cuda.is_available(),
        "logging_steps": 1,
        "logging_first_step": True,
        "save_strategy": "no",
        "report_to": "none",
        "seed": 1,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }


def _trl(spec: Mapping[str, Any], pairs: Sequence[Mapping[str, Any]]) -> dict[str, object]:
    trl: Any = importlib.import_module("trl")
    trainer_class = trl.RewardTrainer  # imported here, not on the clock
    from datasets import Dataset, disable_progress_bars
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, PrinterCallback

    disable_progress_bars()
    model = AutoModelForSequenceClassification.from_pretrained(Path(spec["folder"]) / "model")
    tokenizer = AutoTokenizer.from_pretrained(Path(spec["folder"]) / "model")
    grouped: dict[str, Any] = {
        "train_sampling_strategy": "group_by_length",
        "remove_unused_columns": False,
    }  # keeps the length column
    more: dict[str, Any] = grouped if spec["arm"] == "trl_grouped" else {}
    cut = {
        "per_device_train_batch_size": spec["micro_batch"],
        "gradient_accumulation_steps": spec["global_batch_size"] // spec["micro_batch"],
    }
    arguments = trl.RewardConfig(
        **{**_common(spec), **cut, **more},
        max_length=None,
        gradient_checkpointing=spec["checkpointing"],
        disable_dropout=True,
    )
    meter = _Meter()
    rows = [
        {
            "prompt": pair["prompt"],
            "chosen": [{"role": "assistant", "content": pair["chosen"]}],
            "rejected": [{"role": "assistant", "content": pair["rejected"]}],
        }
        for pair in pairs
    ]
    trainer = trainer_class(model, arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    trainer.remove_callback(PrinterCallback)
    if spec["arm"] == "trl_grouped":
        _give_lengths(trainer)
    data = trainer.train_dataset
    tokens = sum(len(ids) for name in ("chosen_ids", "rejected_ids") for ids in data[name])
    began = time.perf_counter()
    trainer.train()
    return meter.result(trainer, n=len(pairs), tokens=tokens, train_s=time.perf_counter() - began)


def _give_lengths(trainer: Any) -> None:
    """The Trainer's length-grouped sampler asks for a column that RewardTrainer does not write."""
    data = trainer.train_dataset
    pairs = zip(data["chosen_ids"], data["rejected_ids"], strict=True)
    trainer.train_dataset = data.add_column("length", [max(len(chosen), len(rejected)) for chosen, rejected in pairs])
    trainer.args.length_column_name = "length"


def _rmkit(spec: Mapping[str, Any], pairs: Sequence[Mapping[str, Any]]) -> dict[str, object]:
    from transformers import TrainingArguments

    from rmkit.data.example import Example
    from rmkit.training.config import ExplicitConfig
    from rmkit.training.data import read_rows
    from rmkit.training.kinds.explicit import build
    from rmkit.training.trainer import RewardTrainer

    config = ExplicitConfig(
        model=str(Path(spec["folder"]) / "model"),
        global_batch_size=spec["global_batch_size"],
        max_batch_tokens=spec["max_batch_tokens"],
        precision=spec["precision"],
        gradient_checkpointing=spec["checkpointing"],
        share_prompts=spec["arm"] != "packed",
        max_length=1 << 16,
        response_reserve_tokens=1 << 15,
    )
    module, chat = build(config)
    _as_arm(module, spec["arm"], micro_batch=spec["micro_batch"])
    meter = _Meter()
    rows, skipped = read_rows(
        (Example(_example(i, pair)) for i, pair in enumerate(pairs)), chat, objective=config.objective
    )
    if skipped:
        raise DataError(f"pairs were left out, so the arms would not do the same work: {skipped}")
    arguments = TrainingArguments(**_common(spec), remove_unused_columns=False)
    trainer = RewardTrainer(module, arguments, config=config, rows=rows)
    began = time.perf_counter()
    trainer.train()
    tokens = sum(len(ids) for row in rows for ids in row.ids)
    return meter.result(trainer, n=len(pairs), tokens=tokens, train_s=time.perf_counter() - began)


def _as_arm(module: Any, arm: str, *, micro_batch: int) -> None:
    """Turn single ingredients off by padding, and by how a step is cut."""
    if arm in ("rmkit", "packed"):
        return
    if arm != "prefix":
        module.padded_because = f"benchmark arm {arm}"
        module.classifier.set_attn_implementation("sdpa")

    def padded_tokens(rows: Sequence[Sequence[Any]], batch: Sequence[int]) -> int:
        lines = [len(ids) for row in batch for ids in rows[row]]
        return len(lines) * max(lines)

    def plan(rows: Sequence[Sequence[Any]], *, max_batch_tokens: int) -> list[list[int]]:
        numbers = list(range(len(rows)))
        if arm == "bucketed":
            numbers.sort(key=lambda number: -max(len(ids) for ids in rows[number]))
        if arm in ("head", "bucketed", "prefix"):
            return [numbers[i : i + micro_batch] for i in range(0, len(numbers), micro_batch)]
        batches: list[list[int]] = [[]]
        for number in numbers:
            if batches[-1] and padded_tokens(rows, [*batches[-1], number]) > max_batch_tokens:
                batches.append([])
            batches[-1].append(number)
        return batches

    module.plan = plan


def _example(number: int, pair: Mapping[str, Any]) -> dict[str, object]:
    from rmkit.data.example import EXAMPLE_SCHEMA
    from rmkit.ids import assistant_message, canonical_json

    row: dict[str, Any] = dict.fromkeys(EXAMPLE_SCHEMA.names)
    return row | {
        "id": str(number),
        "kind": "pair",
        "prompt": canonical_json(pair["prompt"]),
        "responses": [assistant_message(pair["chosen"]), assistant_message(pair["rejected"])],
        "p": [1.0, 0.0],
        "family": number,
        "source": "bench",
    }
