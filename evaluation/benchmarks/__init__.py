"""`rmkit bench NAME`: the benchmarks whose numbers the documentation quotes, each runnable by a reader."""

from __future__ import annotations

import importlib

from rmkit.errors import UsageError
from rmkit.revision import versions_text

BENCHMARKS = {
    "ingest": (
        "evaluation.benchmarks.data.ingest",
        "1M pairs: validated, deduplicated, committed; time and memory",
    ),
    "versions": (
        "evaluation.benchmarks.data.versions",
        "a history's size, a diff's time, checkout beside plain SQL",
    ),
    "policy": ("evaluation.benchmarks.policy.run", "TRL trains a policy on rewards from a running service"),
    "suites": ("evaluation.benchmarks.suites", "a benchmark through the evaluator beside a plain padded loop"),
    "neardup": (
        "evaluation.benchmarks.data.neardup",
        "near-duplicates among 100k texts: time and recall on planted ones",
    ),
    "denoising": (
        "evaluation.benchmarks.denoising.run",
        "denoising methods under known label noise; speed of peer review",
    ),
    "training": ("evaluation.benchmarks.training.run", "explicit training beside TRL's RewardTrainer"),
    "judge": (
        "evaluation.benchmarks.judging.run",
        "judges at a fixed latency: share of the ceiling, memory, kill and resume",
    ),
    "judge-training": (
        "evaluation.benchmarks.judge_training.run",
        "a tiny judge by SFT, DPO and GRPO on a planted preference; what two-order admission lets through",
    ),
    "service": (
        "evaluation.benchmarks.service.run",
        "the reward service under load, beside bare engine and plain server",
    ),
    "hard-rules": ("evaluation.benchmarks.rubrics.hard_rules", "checkable rules as code, responses a second"),
    "rubric-filter": (
        "evaluation.benchmarks.rubrics.filter",
        "preference-label consistency: rule precision and held-out judge accuracy, before and after",
    ),
    "rubric-pairs": (
        "evaluation.benchmarks.rubrics.pairs",
        "contrastive rubrics from real pairs by a scripted writer and judge, killed and resumed",
    ),
    "scoring": (
        "evaluation.benchmarks.scoring",
        "N completions a prompt: shared prompts beside the plain padded way",
    ),
    "uncertainty": (
        "evaluation.benchmarks.uncertainty",
        "a standard deviation by MC dropout beside one plain pass",
    ),
    "gpu-training": (
        "evaluation.benchmarks.training.gpu",
        "a training step on one GPU: packed with shared prompts beside padded, use of the matrix peak",
    ),
    "crossval": (
        "evaluation.benchmarks.crossval.run",
        "a frozen encoder on people's preferences, cross-validated, beside length and people",
    ),
    "studio": (
        "labeling_ui.benchmarks.load",
        "annotators over HTTP and in browsers while the labeling studio is killed and restarted",
    ),
    "studio-keys": ("labeling_ui.benchmarks.keys", "from a key to the next item, beside the smallest Streamlit page"),
    "studio-scale": (
        "labeling_ui.benchmarks.scale",
        "the labeling studio on 100k items: time to open each page, memory over a long use",
    ),
    "implicit": ("evaluation.benchmarks.implicit.run", "explicit against implicit reward models where wording shifts"),
    "process": ("evaluation.benchmarks.process.run", "a process model beside length and lexical baselines, by problem"),
}


def main(argv: list[str]) -> int:
    """Entry point of `rmkit bench NAME [options]`. Raises UsageError for an unknown name."""
    if not argv or argv[0] in ("-h", "--help"):
        lines = [f"  {name:<14}{summary}" for name, (_, summary) in BENCHMARKS.items()]
        print("\n".join(["usage: rmkit bench NAME [options]        rmkit bench NAME --help shows them", "", *lines]))
        print("\nexamples:\n  rmkit bench neardup\n  rmkit bench ingest --pairs 100000 --json")
        return 0
    name, *options = argv
    if name not in BENCHMARKS:
        raise UsageError(f"no benchmark {name!r}; one of: {', '.join(BENCHMARKS)}")
    status: int = importlib.import_module(BENCHMARKS[name][0]).main(options)
    if "--json" not in options:
        print(f"\nmeasured with {versions_text()}")
    return status
