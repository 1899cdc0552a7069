"""`rmkit judge-data STAGE JUDGE.toml DATASET`: training data for a judge, a folder that says where it came from.

sft       a teacher's replies, admitted only where it is right in both orders
dpo       right against wrong samples of the SFT judge, on what the teacher failed
verdicts  verdict tokens from labels alone (GenRM)
orders    prompts in both orders with the right letter, for GRPO's consistency reward
spark     verified rollouts recycled into judge items
rubrics   rubrics and verdicts of `rmkit rubrics generate`, for a rubric writer or a judge under rubrics
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from data_pipelines.judge.data import (
    dpo as judge_data_dpo,
)
from data_pipelines.judge.data import (
    recycled_rollouts,
)
from data_pipelines.judge.data import (
    sft as judge_data_sft,
)
from data_pipelines.judge.data import (
    verdicts as judge_data_verdicts,
)
from data_pipelines.judge.data.folder import DROPPED, Built, prompt_path, read_folder, read_lines, write_folder
from data_pipelines.judge.data.items import Item, asking, read_items
from data_pipelines.judge.data.rubrics import read_rubrics
from rmkit.cli import arguments, display
from rmkit.cli.verbs import Command, Verbs
from rmkit.data.example import Example
from rmkit.data.export_folder import SPLIT_NAMES, dataset_of, examples_of, export_folder
from rmkit.errors import DataError, UsageError
from rmkit.generate.estimate import estimate
from rmkit.judge import Judge, judging_lines, load_judge
from rmkit.ledger import Ledger, open_ledger
from rmkit.storage.address import is_address
from rmkit.storage.fetch import fetch
from rubrics.rubric_rm import WRITER_PROMPT

STAGES = {
    "sft": "a teacher's replies, admitted only where it is right in both orders",
    "dpo": "right against wrong samples of the SFT judge, on what the teacher failed",
    "verdicts": "verdict tokens from labels alone (GenRM)",
    "orders": "prompts in both orders, for GRPO's consistency reward",
    "spark": "verified rollouts (scores 1 and 0) recycled into judge items",
    "rubrics": "rubrics and verdicts of rmkit rubrics generate, for a writer or a judge",
}
EXAMPLES = {
    "sft": "judge-data sft teacher.toml hh@v2 -o judge-sft --max-usd 5",
    "dpo": "judge-data dpo judge-1/judge.toml hh@v2 --failed judge-sft -o judge-dpo",
    "verdicts": "judge-data verdicts judge.toml hh@v2 -o judge-verdicts",
    "orders": "judge-data orders judge.toml hh@v2 -o judge-orders",
    "spark": "judge-data spark yes_no.toml pairwise.toml rollouts@v1 -o judge-spark",
    "rubrics": "judge-data rubrics judge.toml rubrics/uf --part judge -o judge-rubrics",
}


def _build(argv: list[str], *, stage: str) -> int:
    """Status 1 where the budget ended before the data: what was answered is kept, the same command goes on."""
    options = _parser(stage).parse_args(argv)
    options.stage = stage
    if options.output.exists():
        raise UsageError(f"{options.output} exists already; judge data is never overwritten, name a new folder with -o")
    if options.stage == "rubrics":
        return _of_rubrics(options)
    folder = export_folder(options.data)
    dataset = dataset_of(folder)
    if dataset["benchmark_rows"] and not options.allow_benchmark:
        raise DataError(
            f"{dataset['ref']} holds {dataset['benchmark_rows']} benchmark rows, and a judge trained on them cannot be "
            "judged by them; drop them with a recipe, or add --allow-benchmark"
        )
    examples = _examples(folder, options.split, options.limit)
    with open_ledger() as ledger, _judges(options, ledger) as judges:
        if getattr(options, "dry_run", False):
            display.emit(_estimated(options, judges[0], examples, ledger), as_json=options.json)
            return 0
        built, facts = _built(options, judges, examples)
        judging = judges[0].report()  # of several (spark) none is asked
    if judging["budget_spent"]:
        display.emit(judging | {"dropped": built.reasons}, as_json=options.json)
        return 1
    facts |= {"dataset": dataset, "split": options.split, "read": len(examples), "judging": judging}
    manifest = write_folder(options.output, built, judge=options.judge[0], stage=options.stage, **facts)
    _tell(manifest, options)
    return 0


def _parser(stage: str) -> arguments.Parser:
    parser = arguments.parser(f"judge-data {stage}", f"{STAGES[stage]}.".capitalize(), examples=[EXAMPLES[stage]])
    parser.add_argument("judge", type=Path, nargs="+" if stage == "spark" else 1, help="the judge's TOML file")
    parser.add_data("data", help="a folder of rmkit rubrics generate" if stage == "rubrics" else arguments.DATA)
    parser.add_output("a new folder", required=True)
    if stage == "rubrics":
        parser.add_argument("--part", choices=("writer", "judge"), required=True, help="whom the rows train")
        return parser
    parser.add_split("train")
    parser.add_limit()
    parser.add_allow_benchmark()
    if stage in ("sft", "dpo"):
        parser.add_paid_calls()
    match stage:
        case "sft":
            parser.add_argument(
                "--orders", choices=("both", "given"), default="both", help="given admits on one order (to compare)"
            )
        case "dpo":
            parser.add_argument(
                "--failed", type=Path, required=True, help="SFT judge data: the items that its teacher failed"
            )
            parser.add_argument("--samples", type=int, default=8, help="in each order")
            parser.add_argument("--temperature", type=float, default=1.0, help="of the samples")
        case "verdicts":
            parser.add_argument(
                "--solutions",
                type=float,
                default=0.0,
                help="GenRM's lambda: share of rows that are the better response",
            )
        case "spark":
            parser.add_argument("--aspect", default="score", help="rating that says 1 (right) or 0 (wrong)")
            parser.add_argument(
                "--no-reflection", dest="reflection", action="store_false", help="leave reflections out"
            )
    return parser


def _of_rubrics(options: argparse.Namespace) -> int:
    built, dataset = read_rubrics(
        fetch(options.data) if is_address(options.data) else Path(options.data), part=options.part
    )
    prompt = WRITER_PROMPT if options.part == "writer" else None
    facts = {
        "dataset": {"ref": dataset},
        "settings": {"part": options.part},
        "read": len(built.rows) + len(built.dropped),
    }
    manifest = write_folder(options.output, built, judge=options.judge[0], prompt=prompt, stage="rubrics", **facts)
    _tell(manifest, options)
    return 0


def _examples(folder: Path, split: str, limit: int | None) -> list[Example]:
    if limit is not None and limit < 1:
        raise UsageError(f"--limit must be at least 1, got {limit}")
    for name in SPLIT_NAMES.get(split, ()):
        with contextlib.suppress(DataError):
            return examples_of(folder, name)[:limit]
    return examples_of(folder, split)[:limit]


@contextlib.contextmanager
def _judges(options: argparse.Namespace, ledger: Ledger) -> Iterator[list[Judge]]:
    limits = {"max_usd": getattr(options, "max_usd", None), "max_tokens": getattr(options, "max_tokens", None)}
    for path in options.judge:
        prompt_path(path)  # what no training data can be written under is refused before anything is paid
    with contextlib.ExitStack() as opened:
        judges = [load_judge(path, ledger=ledger, **limits) for path in options.judge]
        for judge in judges:
            opened.callback(judge.close)
        yield judges


def _estimated(
    options: argparse.Namespace, judge: Judge, examples: Sequence[Example], ledger: Ledger
) -> dict[str, object]:
    """What the stage would ask and cost."""
    items, _ = read_items(examples)
    if options.stage == "dpo":
        items, _ = _failed(options.failed, items)
        queries = judge_data_dpo.sampling(judge, samples=options.samples, temperature=options.temperature)
    else:
        queries = asking(judge, votes=1, orders=options.orders)
    requests = (request for item in items for _, request in queries.requests(item.candidates))
    return {"items": len(items)} | estimate(requests, judge.engine.generator, ledger)


def _built(
    options: argparse.Namespace, judges: Sequence[Judge], examples: Sequence[Example]
) -> tuple[Built, dict[str, Any]]:
    """Rows and drops, and what the manifest says beyond them."""
    judge = judges[0]
    if options.stage == "spark":
        groups, reasons = recycled_rollouts.read_groups(examples, aspect=options.aspect)
        built = recycled_rollouts.recycled(judges, groups, skipped=reasons, reflection=options.reflection)
        return built, {"settings": {"aspect": options.aspect, "reflection": options.reflection}}
    items, reasons = read_items(examples)
    if judge.config.form != "pairwise" and options.stage != "verdicts":
        raise UsageError(
            f"judge-data {options.stage} takes a pairwise judge, {options.judge[0]} is {judge.config.form}"
        )
    match options.stage:
        case "sft":
            built = judge_data_sft.admitted(judge, items, skipped=reasons, orders=options.orders)
            return built, {"settings": {"orders": options.orders}, "teacher": judge.engine.generator.name}
        case "dpo":
            items, parent = _failed(options.failed, items)
            settings = {"samples": options.samples, "temperature": options.temperature}
            built = judge_data_dpo.contrasted(judge, items, skipped=reasons, **settings)
            return built, {"settings": settings, "sampled_from": judge.engine.generator.name, "parents": [parent]}
        case "verdicts":
            built = judge_data_verdicts.verdict_rows(judge, items, skipped=reasons, solutions=options.solutions)
            return built, {"settings": {"solutions": options.solutions}}
    return judge_data_verdicts.both_orders(judge, items, skipped=reasons), {"settings": {}}


def _failed(folder: Path, items: Sequence[Item]) -> tuple[list[Item], str]:
    """The items that the teacher of that SFT data judged wrongly, and the data's digest."""
    manifest = read_folder(folder)
    if manifest["stage"] != "sft":
        raise UsageError(f"--failed takes SFT judge data, {folder} is {manifest['stage']}")
    failed = {one["id"] for one in read_lines(folder / DROPPED) if one["reason"] in judge_data_sft.TEACHER_FAILED}
    result = [item for item in items if item.id in failed]
    if not result:
        raise DataError(
            f"none of the {len(failed)} items that the teacher of {folder} failed is in this data and split"
        )
    return result, str(manifest["digest"])


def _tell(manifest: Mapping[str, Any], options: argparse.Namespace) -> None:
    dropped = "; ".join(f"{count}: {reason}" for reason, count in manifest["dropped"].items()) or "nothing"
    lines = [
        f"rows     {manifest['rows']} from {manifest['items']} items ({manifest['read']} rows read)",
        f"dropped  {dropped}",
        f"digest   {manifest['digest']}",
        f"folder   {options.output}",
        *(judging_lines(manifest) if manifest.get("judging", {}).get("calls") else []),
    ]
    display.emit(dict(manifest) | {"path": str(options.output)}, as_json=options.json, text="\n".join(lines))


main = Verbs(
    "judge-data",
    "Build training data for a judge from a dataset version; every item that gives no row has a counted reason.",
    {stage: Command(partial(_build, stage=stage), summary) for stage, summary in STAGES.items()},
    examples=[*EXAMPLES.values(), "train judge --stage sft --data judge-sft --base Qwen/Qwen2.5-7B -o judge-1"],
    word="STAGE",
)
