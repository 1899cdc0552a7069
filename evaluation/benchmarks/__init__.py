"""`rmkit bench NAME`: the benchmarks whose numbers the documentation quotes, each runnable by a reader."""

from __future__ import annotations

from functools import partial

from rmkit.cli.verbs import Command, Verbs
from rmkit.plugins import load, upper
from rmkit.revision import versions_text


def _run(module: str, argv: list[str]) -> int:
    """The benchmark of that module; or, where it stands in an upper room, of that name in the table of plug-ins."""
    status: int = (load(f"{module}:main") if "." in module else upper(module))(argv)
    if "--json" not in argv:
        print(f"\nmeasured with {versions_text()}")
    return status


main = Verbs(
    "bench",
    "The benchmarks whose numbers the documentation quotes.",
    {
        "ingest": Command(
            partial(_run, "evaluation.benchmarks.data.ingest"),
            "1M pairs: validated, deduplicated, committed; time and memory",
        ),
        "limits": Command(
            partial(_run, "evaluation.benchmarks.data.limits"),
            "ingest, clean, export, token store and score as the rows grow: time a row and memory",
        ),
        "engines": Command(
            partial(_run, "evaluation.benchmarks.data.engines"),
            "recipes on Ray's actors beside one process, the same digest though workers are killed",
        ),
        "versions": Command(
            partial(_run, "evaluation.benchmarks.data.versions"),
            "a history's size, a diff's time, checkout beside plain SQL",
        ),
        "policy": Command(
            partial(_run, "evaluation.benchmarks.policy.run"), "TRL trains a policy on rewards from a running service"
        ),
        "policy-signal": Command(
            partial(_run, "evaluation.benchmarks.policy.arithmetic"),
            "TRL trains a policy on a verifier, a length term and a z-score, beside the raw reward model",
        ),
        "suites": Command(
            partial(_run, "evaluation.benchmarks.suites"),
            "a benchmark through the evaluator beside a plain padded loop",
        ),
        "neardup": Command(
            partial(_run, "evaluation.benchmarks.data.neardup"),
            "near-duplicates among 100k texts: time and recall on planted ones",
        ),
        "denoising": Command(
            partial(_run, "evaluation.benchmarks.denoising.run"),
            "denoising methods under known label noise; speed of peer review",
        ),
        "upo": Command(
            partial(_run, "evaluation.benchmarks.upo"),
            "UPO without estimator, smoothing or likelihood, on a tiny policy",
        ),
        "training": Command(
            partial(_run, "evaluation.benchmarks.training.run"), "explicit training beside TRL's RewardTrainer"
        ),
        "judge": Command(
            partial(_run, "evaluation.benchmarks.judging.run"),
            "judges at a fixed latency: share of the ceiling, memory, kill and resume",
        ),
        "judge-training": Command(
            partial(_run, "evaluation.benchmarks.judge_training.run"),
            "a tiny judge by SFT, DPO and GRPO on a planted preference; what two-order admission lets through",
        ),
        "service": Command(
            partial(_run, "evaluation.benchmarks.service.run"),
            "the reward service under load, beside bare engine and plain server",
        ),
        "chain": Command(
            partial(_run, "evaluation.benchmarks.shaping.chain"), "a five-step chain over 1,024 groups of 16 rewards"
        ),
        "propose": Command(
            partial(_run, "evaluation.benchmarks.shaping.propose"),
            "share of groups with a signal when the prompt book proposes, against uniform; a simulated learner",
        ),
        "hard-rules": Command(
            partial(_run, "evaluation.benchmarks.rubrics.hard_rules"), "checkable rules as code, responses a second"
        ),
        "rubric-filter": Command(
            partial(_run, "evaluation.benchmarks.rubrics.filter"),
            "preference-label consistency: rule precision and held-out judge accuracy, before and after",
        ),
        "rubric-pairs": Command(
            partial(_run, "evaluation.benchmarks.rubrics.pairs"),
            "contrastive rubrics from real pairs by a scripted writer and judge, killed and resumed",
        ),
        "scoring": Command(
            partial(_run, "evaluation.benchmarks.scoring"),
            "N completions a prompt: shared prompts beside the plain padded way",
        ),
        "uncertainty": Command(
            partial(_run, "evaluation.benchmarks.uncertainty"),
            "a standard deviation by MC dropout beside one plain pass",
        ),
        "tokens": Command(
            partial(_run, "evaluation.benchmarks.training.tokens"),
            "encoding the rows of a training split: processes, memory, bytes a token",
        ),
        "plan": Command(
            partial(_run, "evaluation.benchmarks.training.plan"),
            "memory that train --plan tells beside what a profiled step allocates; a table for 0.6B, 8B and 70B",
        ),
        "gpu-training": Command(
            partial(_run, "evaluation.benchmarks.training.gpu"),
            "a training step on one GPU: packed with shared prompts beside padded, use of the matrix peak",
        ),
        "crossval": Command(
            partial(_run, "evaluation.benchmarks.crossval.run"),
            "a frozen encoder on people's preferences, cross-validated, beside length and people",
        ),
        "studio": Command(
            partial(_run, "bench_studio"),
            "annotators over HTTP and in browsers while the labeling studio is killed and restarted",
        ),
        "story": Command(
            partial(_run, "bench_story"),
            "the whole loop from a votes file to a retrained model, killed between its stages; one page",
        ),
        "studio-keys": Command(
            partial(_run, "bench_studio_keys"),
            "from a key to the next item, beside the smallest Streamlit page",
        ),
        "studio-scale": Command(
            partial(_run, "bench_studio_scale"),
            "the labeling studio on 100k items: time to open each page, memory over a long use",
        ),
        "implicit": Command(
            partial(_run, "evaluation.benchmarks.implicit.run"),
            "explicit against implicit reward models where wording shifts",
        ),
        "trees": Command(
            partial(_run, "evaluation.benchmarks.trees.run"),
            "step labels from rollouts, prover progress, search over budgets, a beam with shared prefixes",
        ),
        "process-outcome": Command(
            partial(_run, "evaluation.benchmarks.trees.process_outcome"),
            "a process model beside an outcome model on the same rollouts of a policy trained here",
        ),
        "process": Command(
            partial(_run, "evaluation.benchmarks.process.run"),
            "a process model beside length and lexical baselines, by problem",
        ),
    },
    examples=["bench neardup", "bench ingest --pairs 100000 --json"],
    word="NAME",
)
