"""`rmkit train judge --stage sft|dpo|grpo`: a language model becomes a judge, from data of `rmkit judge-data`.

The result is a folder that holds the model in transformers' form and

    judge.toml            the judge itself: `rmkit eval FOLDER/judge.toml ...`, like every reward model (a rubric
                          writer has none: name its folder in the table [writer] of a judge's TOML)
    prompt.jinja          what it was trained to be asked with
    judge_training.json   stage, settings, base with the hash of its weights, data (digest, dataset, parents), losses
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_pipelines.judge.data.folder import PROMPT, ROWS, Row, read_folder, read_lines
from data_pipelines.judge.training.config import JudgeTrainingConfig, Stage
from rmkit.atomic import draft_folder, put
from rmkit.cli import arguments, display
from rmkit.errors import ModelError, UsageError
from rmkit.ids import digest, file_sha256
from rmkit.judge import read_judge

if TYPE_CHECKING:
    from transformers import Trainer

FACTS, JUDGE = "judge_training.json", "judge.toml"


def main(argv: list[str]) -> int:
    """Entry point of `rmkit train judge`."""
    parser = arguments.parser(
        "train judge",
        "Train a language model as a judge with TRL: SFT, DPO (with NLL on the chosen reply), or GRPO (both orders).",
        examples=[
            "train judge --stage sft --data judge-sft --base Qwen/Qwen2.5-7B -o judge-1",
            "train judge --stage dpo --data judge-dpo --base judge-1 -o judge-2 --set beta=0.2",
            "train judge --stage grpo --data judge-orders --base judge-2 -o judge-3 --seed 1",
        ],
    )
    parser.add_argument("--stage", required=True, choices=("sft", "dpo", "grpo"))
    parser.add_argument("--data", type=Path, required=True, help="a folder written by rmkit judge-data")
    parser.add_argument("--base", required=True, help="model to start from: a folder, or a name on the hub")
    parser.add_output("a new folder", required=True)
    parser.add_config(JudgeTrainingConfig)
    parser.add_seed(None, help="as --set seed=N")
    options = parser.parse_args(argv)
    settings = arguments.settings(JudgeTrainingConfig, options, where="train judge", named={"seed": options.seed})
    result = train(options.stage, options.data, base=options.base, output=options.output, settings=settings)
    display.emit(result, as_json=options.json, text=_text(result))
    return 0


def train(stage: Stage, data: Path, *, base: str, output: Path, settings: JudgeTrainingConfig) -> dict[str, Any]:
    """Train and store a judge; the facts of its judge_training.json with its path and fingerprint.

    Raises UsageError where `output` exists, DataError where the data is none or fits the stage in no row, ModelError
    for a base that is no chat model, MissingExtraError without torch, transformers or trl.
    """
    from data_pipelines.judge.training.trainers import load_base, usable

    start = time.monotonic()
    if output.exists():
        raise UsageError(f"{output} exists already; name a new folder with -o")
    manifest = read_folder(data)
    model, tokenizer = load_base(base)
    rows, dropped = usable(read_lines(data / ROWS), stage, tokenizer=tokenizer, config=settings)
    with draft_folder(output) as folder:
        trainer = _trained(stage, model, tokenizer, rows, settings)
        trained = trainer.accelerator.unwrap_model(trainer.model)
        if settings.lora_rank:
            trained = trained.merge_and_unload()
        trained.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        shutil.copyfile(data / PROMPT, folder / PROMPT)
        facts = {
            "stage": stage,
            "settings": asdict(settings),
            "base": {"name": base, "sha256": weights_sha256(Path(base))},
            "data": {key: manifest.get(key) for key in ("digest", "stage", "dataset", "split", "parents")},
            "rows": len(rows),
            "dropped": dropped,
            "steps": trainer.state.global_step,
            "log": _log(trainer.state.log_history),
            "seconds": round(time.monotonic() - start, 2),
            "versions": {name: version(name) for name in ("torch", "transformers", "trl")},
        }
        (folder / FACTS).write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
        if manifest["judge"]:
            (folder / JUDGE).write_text(judge_toml(output.name, manifest["judge"]))
            read_judge(folder / JUDGE)
        put(folder, output)
    judge = str(output / JUDGE) if manifest["judge"] else None
    return {"path": str(output), "judge": judge, "sha256": weights_sha256(output), **facts}


def _trained(stage: Stage, model: Any, tokenizer: Any, rows: Sequence[Row], settings: JudgeTrainingConfig) -> Trainer:
    from data_pipelines.judge.training.trainers import trainer_of

    with tempfile.TemporaryDirectory() as run, _quiet():
        trainer = trainer_of(stage, model, tokenizer, rows, config=settings, run=Path(run))
        trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    if any(loss != loss for loss in losses):
        raise ModelError("the training loss is not a number; lower learning_rate, or train in fp32")
    return trainer


def judge_toml(name: str, requests: Mapping[str, Any]) -> str:
    """The TOML of a judge whose model lies in the same folder; it asks as `requests` (a JudgeConfig's fields) did."""
    judge = dict(requests) | {"name": name, "prompt": PROMPT, "votes": 1, "temperature": 0.0}
    tables = {"judge": judge, "generator": {"model": ".", "backend": "local"}}
    lines = []
    for title, table in tables.items():
        lines += [
            f"[{title}]",
            *(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items()),
            "",
        ]
    return "\n".join(lines)


def weights_sha256(folder: Path) -> str | None:
    """One hash over the weight files of a model folder, None for a name on the hub."""
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    return digest([f"{path.name} {file_sha256(path)}" for path in files]) if files else None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The trainers' own chatter kept off stdout and stderr; their errors are raised."""
    from datasets import disable_progress_bars
    from transformers.trainer_callback import PrinterCallback
    from transformers.utils import logging as transformers_logging

    disable_progress_bars()
    transformers_logging.disable_progress_bar()
    shown, PrinterCallback.on_log = PrinterCallback.on_log, lambda *args, **kwargs: None
    try:
        with warnings.catch_warnings(), display.only_errors_of("trl"):
            warnings.simplefilter("ignore")
            yield
    finally:
        PrinterCallback.on_log = shown


LOGGED = ("loss", "reward", "right_share", "reward_std", "kl", "rewards/accuracies", "rewards/margins")


def _log(history: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Per step what the stage tells about itself."""
    steps = [entry for entry in history if "loss" in entry]
    return [{key: round(float(entry[key]), 6) for key in ("step", *LOGGED) if key in entry} for entry in steps]


def _text(result: Mapping[str, Any]) -> str:
    first, last = result["log"][0], result["log"][-1]
    moved = [f"{key} {first[key]:.3f} -> {last[key]:.3f}" for key in LOGGED if key in first and key in last]
    dropped = "; ".join(f"{count}: {reason}" for reason, count in result["dropped"].items()) or "none"
    judge = result["judge"]
    use = (
        f"rmkit eval {judge} --data NAME@VERSION"
        if judge
        else f'[writer] backend = "local", model = "{result["path"]}"'
    )
    return display.fields(
        {
            "model": judge or result["path"],
            "rows": f"{result['rows']} (dropped {dropped})",
            "steps": f"{result['steps']} in {result['seconds']:.1f} s; first and last: {', '.join(moved)}",
            "data": f"{result['data']['digest']} from {(result['data']['dataset'] or {}).get('ref')}",
            "try it": use,
        }
    )
