"""`rmkit bench judge-training`: what admission in both orders lets through, and what a tiny judge learns by each stage.

Admission (algorithms, section 6): stub teachers through the engine, the prompt, the parser and the admission that real
teachers go through; the share of admitted rows in which the teacher was right by luck, beside what probability says.

Training: a small world (judge_training_world), and per seed the very commands' functions: SFT on what the teacher got
right in both orders, DPO on samples of the SFT judge where the teacher failed, GRPO from the same SFT judge with the
both-order reward. As a control SFT and DPO run with the labels of the training items permuted among them. Measured on
pairs of words that no training item held:

    both orders   share of pairs judged rightly in (a, b) and in (b, a)   a consistent guess 1/2, coins 1/4, a slot 0
    one order     share of calls judged rightly                            chance 1/2

SPARK: one model trained on yes/no items and pairs recycled from verified rollouts (judge_training_spark).
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from data_pipelines.judge.data import dpo as judge_data_dpo
from data_pipelines.judge.data import sft as judge_data_sft
from data_pipelines.judge.data import verdicts as judge_data_verdicts
from data_pipelines.judge.data.folder import Built, write_folder
from data_pipelines.judge.data.items import right
from data_pipelines.judge.training.command import judge_toml, train
from data_pipelines.judge.training.config import JudgeTrainingConfig
from evaluation.benchmarks.judge_training import admission, recycled_rollouts
from evaluation.benchmarks.judge_training import page as judge_training_page
from evaluation.benchmarks.judge_training.synthetic_task import (
    SyntheticTask,
    Teacher,
    made_world,
    write_base,
    write_judge,
)
from rmkit.cli import arguments, display
from rmkit.errors import UsageError
from rmkit.generate import Engine, Limits
from rmkit.judge import Judge, load_judge, read_judge
from rmkit.judge.prompt_file import PromptFile
from rmkit.ledger import open_ledger

COMMON: dict[str, Any] = {"max_length": 100, "precision": "fp32"}
SFT = JudgeTrainingConfig(num_train_epochs=4, learning_rate=3e-3, global_batch_size=32, **COMMON)
# at a model this small 0.2 lets DPO push the format away with the wrong verdict (parse rate 0.67 on one seed)
DPO = JudgeTrainingConfig(num_train_epochs=8, learning_rate=7e-4, global_batch_size=32, nll_weight=1.0, **COMMON)
GRPO = JudgeTrainingConfig(
    steps=40,
    num_train_epochs=40,
    learning_rate=1e-3,
    global_batch_size=16,
    generations=8,
    reply_tokens=4,
    kl=0.0,
    **COMMON,
)


def main(argv: list[str]) -> int:
    parser = arguments.parser(
        "bench judge-training",
        "Lucky rows that admission lets through; held-out accuracy of a tiny judge after SFT, DPO and GRPO.",
        examples=["bench judge-training", "bench judge-training --seeds 3 --page docs/benchmarks/judge_training.md"],
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--admission-items", type=int, default=10000)
    parser.add_argument("--items", type=int, default=400, help="training items of the world")
    parser.add_page(help="write the results page, with a plot beside it")
    options = parser.parse_args(argv)
    if options.seeds < 1:
        raise UsageError(f"--seeds must be at least 1, got {options.seeds}")
    if options.page:
        options.page.parent.mkdir(parents=True, exist_ok=True)  # before the work: an unwritable place is told at once
    result = run(options.seeds, items=options.items, admission_items=options.admission_items)
    if options.page:
        judge_training_page.write(options.page, result, argv=argv)
    display.emit(result, as_json=options.json, text=judge_training_page.text(result))
    return 0


def run(seeds: int, *, items: int = 400, admission_items: int = 10000) -> dict[str, object]:
    """Admission table and one entry per seed and arm."""
    from transformers.utils import logging

    by_key: dict[str, Any] = {"items": items, "admission": admission.run(admission_items)}
    by_key |= {"runs": [], "spark": []}
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.disable_progress_bar()
    with display.progress("judges", 3 * seeds) as advance:
        for seed in range(seeds):
            for permuted in (False, True):
                with tempfile.TemporaryDirectory() as folder:
                    by_key["runs"].append(one_seed(Path(folder), seed, items=items, permuted=permuted))
                advance(1)
            with tempfile.TemporaryDirectory() as folder:
                by_key["spark"].append(recycled_rollouts.one_seed(Path(folder), seed, settings=SFT))
            advance(1)
    return by_key


def one_seed(
    folder: Path, seed: int, *, items: int = 400, permuted: bool = False, grpo: bool = True
) -> dict[str, object]:
    """SFT, DPO and (for true labels) GRPO in an empty folder: accuracies, counts and seconds of each stage."""
    start = time.perf_counter()
    world = made_world(seed, train=items, permuted=permuted)
    toml = write_judge(folder / "asked")
    base = write_base(folder / "base", seed=seed)
    by_key: dict[str, Any] = {"seed": seed, "permuted": permuted, "held_out": len(world.held_out), "stages": {}}
    stages = by_key["stages"]

    write_judge_of(base, toml)
    stages["untrained"] = accuracy(base / "judge.toml", world)
    sft = taught(toml, world)
    write_folder(folder / "sft-data", sft, judge=toml, stage="sft", dataset=None)
    failed_ids = {one["id"] for one in sft.dropped}
    failed = [item for item in world.train if item.id in failed_ids]
    stages["sft"] = _stage(folder, "sft", world, base=base, seed=seed, settings=SFT) | {
        "rows": len(sft.rows),
        "failed": len(failed),
    }
    with open_ledger(folder / "ledger.sqlite") as ledger:
        judge = load_judge(folder / "sft" / "judge.toml", ledger=ledger)
        with judge.engine:
            dpo = judge_data_dpo.contrasted(judge, failed, skipped={})
            orders = judge_data_verdicts.both_orders(judge, world.train, skipped={})
    write_folder(folder / "dpo-data", dpo, judge=toml, stage="dpo", dataset=None)
    stages["dpo"] = _stage(folder, "dpo", world, base=folder / "sft", seed=seed, settings=DPO) | {
        "rows": len(dpo.rows),
        "dropped": dpo.reasons,
    }
    by_key["seconds"] = time.perf_counter() - start
    if grpo and not permuted:
        write_folder(folder / "grpo-data", orders, judge=toml, stage="orders", dataset=None)
        stages["grpo"] = _stage(folder, "grpo", world, base=folder / "sft", seed=seed, settings=GRPO)
    return by_key


def write_judge_of(folder: Path, toml: Path) -> None:
    """A judge.toml for the untrained model, which is asked as the trained ones will be."""
    shutil.copyfile(toml.parent / "prompt.jinja", folder / "prompt.jinja")
    (folder / "judge.toml").write_text(judge_toml(folder.name, asdict(read_judge(toml)[0])))


def taught(toml: Path, world: SyntheticTask) -> Built:
    """What the stub teacher's replies leave after admission."""
    config = read_judge(toml)[0]
    teacher = Teacher("stub teacher")
    with Engine(teacher, limits=Limits(concurrency=64)) as engine:
        judge = Judge(config, engine, prompt=PromptFile(toml.parent / config.prompt))
        for item in filter(world.knows, world.train):
            for shown, request in judge.requests(item.candidates):
                teacher.known[request.prompt[-1].content] = item.verdict(shown)
        return judge_data_sft.admitted(judge, world.train, skipped={})


def _stage(
    folder: Path, stage: Any, world: SyntheticTask, *, base: Path, seed: int, settings: Any
) -> dict[str, object]:
    settings = replace(settings, seed=seed)
    result = train(stage, folder / f"{stage}-data", base=str(base), output=folder / stage, settings=settings)
    log = result["log"]
    results = {
        "steps": result["steps"],
        "seconds": result["seconds"],
        **accuracy(folder / stage / "judge.toml", world),
    }
    if stage == "grpo":
        results |= {
            "reward": [entry["reward"] for entry in log],
            "right_share": [entry["right_share"] for entry in log],
        }
    return results


def accuracy(toml: Path, world: SyntheticTask) -> dict[str, object]:
    """On the held-out pairs: parse rate, and per group of words the share right in both orders and per call."""
    with tempfile.TemporaryDirectory() as folder, open_ledger(Path(folder) / "ledger.sqlite") as ledger:
        judge = load_judge(toml, ledger=ledger)
        with judge.engine:
            judged = list(judge.judged(item.candidates for item in world.held_out))
            parse_rate = judge.tally.report()["parse_rate"]
    answers = [
        (world.knows(item), [right(item, vote) is True for vote in result.votes])
        for item, result in zip(world.held_out, judged, strict=True)
    ]
    groups = {"all": (True, False), "taught": (True,), "untaught": (False,)}
    return {"parse_rate": parse_rate} | {
        name: _shares([calls for known, calls in answers if known in target]) for name, target in groups.items()
    }


def _shares(answers: Sequence[Sequence[bool]]) -> dict[str, float]:
    return {
        "both_orders": fmean(all(calls) for calls in answers),
        "one_order": fmean(call for calls in answers for call in calls),
    }
