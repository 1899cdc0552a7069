"""`rmkit bench trees`: labels from rollouts, prover progress, search and shared prefixes, against planted truth."""

from __future__ import annotations

import math
import random
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path as File
from typing import Any

import numpy as np

from data_pipelines.loops.rollouts import Plan, Samples, Work, sampled
from evaluation.benchmarks.trees.confidence import confidence_experiment
from evaluation.benchmarks.trees.page import page
from evaluation.benchmarks.trees.planted import Chain, ScriptedPolicy, chains
from evaluation.benchmarks.trees.verdicts import verdicts
from rmkit.atomic import write_text
from rmkit.chat.steps import step_texts
from rmkit.cli import arguments, display
from rmkit.generate import Engine, Generator, Limits, Request
from rmkit.ids import content_hash
from rmkit.metrics.bootstrap import clustered_interval
from rmkit.search.adapters import GeneratorProposer
from rmkit.search.select import SearchConfig, select
from rmkit.search.space import Scorer, State, StepScores
from rmkit.search.study import Row, best_methods, bin_of
from rmkit.trees.labels.prover_progress import best_of
from rmkit.trees.rules import Named, label
from rmkit.trees.tree import Path, build
from rmkit.types import Completion, Message
from rmkit.verifiers.verifier import load_verifier

LENGTH = 7
ERRORS = (0.05, 0.15, 0.3)
ROLLOUTS = (1, 2, 4, 8, 16)
RULES: dict[str, Named] = {
    "mean >= .5": {"use": "mean", "threshold": 0.5},
    "mean > 0": {"use": "any_correct", "repair": False},
    "any_correct": "any_correct",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """How often a rule names the first wrong step of wrong solutions, and what that cost in continuations each."""

    rule: str
    rollouts: int
    adaptive: bool
    hits: float
    low: float
    high: float
    step_accuracy: float
    continuations: float
    solutions: int


def grown(problems: Sequence[Chain], policy: Generator, *, rollouts: int, adaptive: bool, seed: int) -> list[Samples]:
    """Two solutions of each problem with their continuations."""
    plan = Plan(samples=2, continuations=rollouts, adaptive=adaptive, separator="\n")
    requests = [Request(prompt=one.item.prompt, temperature=1.0, max_tokens=64, seed=seed) for one in problems]
    works = [Work(one.item, request, ()) for one, request in zip(problems, requests, strict=True)]
    with Engine(policy, limits=Limits(concurrency=128)) as engine:
        return list(engine.each(partial(sampled, engine, load_verifier("exact_match"), plan), works))


def hit(problems: Sequence[Chain], results: Sequence[Samples], name: str, *, rollouts: int, adaptive: bool) -> Hit:
    right, clusters, agreed = [], [], []
    for at, (chain, samples) in enumerate(zip(problems, results, strict=True)):
        texts = [
            (step_texts(Completion((Message("assistant", one.text),), step_ends=one.step_ends)), one)
            for one in samples.by_text.values()
        ]
        paths = [
            Path(steps=steps, outcome=one.outcome, start=start)
            for steps, one in texts
            for start, n in one.starts.items()
            for _ in range(n)
        ]
        tree = build(paths)
        values = label(tree, RULES[name])
        for steps, one in texts:
            truth = chain.first_error(steps)
            if 0 not in one.starts or truth < 0 or one.outcome >= 0.5:
                continue
            own = [values[node] for node in tree.walk(steps)]
            named = next((i for i, value in enumerate(own) if value < 0.5), -1)
            right.append(float(named == truth))
            clusters.append(at)
            agreed += [float((value >= 0.5) == (i < truth)) for i, value in enumerate(own)]
    interval = clustered_interval(right, clusters)
    assert interval is not None
    spent = sum(one.continued for one in results)
    return Hit(
        rule=name,
        rollouts=rollouts,
        adaptive=adaptive,
        hits=float(np.mean(right)),
        low=interval.low,
        high=interval.high,
        step_accuracy=float(np.mean(agreed)),
        continuations=spent / len(problems),
        solutions=len(right),
    )


def labels_experiment(
    problems: Sequence[Chain],
    policy: Callable[[], Generator],
    *,
    rollouts: Sequence[int] = ROLLOUTS,
    seed: int,
) -> list[Hit]:
    """Every rule with every number of continuations; `policy` opens the generator anew for each."""
    hits = []
    for n in rollouts:
        plain = grown(problems, policy(), rollouts=n, adaptive=False, seed=seed)
        hits += [hit(problems, plain, name, rollouts=n, adaptive=False) for name in RULES]
        bisected = grown(problems, policy(), rollouts=n, adaptive=True, seed=seed)
        hits.append(hit(problems, bisected, "any_correct", rollouts=n, adaptive=True))
    return hits


def scripted_labels(n: int, *, seed: int) -> list[Hit]:
    """Of the scripted policy."""
    problems = chains(n, length=LENGTH, errors=ERRORS, seed=seed)
    return labels_experiment(problems, lambda: ScriptedPolicy(problems), seed=seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Over K: variance of the prover's advantage, its correlation with the policy's own progress, and the bias of both
    estimators of the prover's value from `rollouts` samples."""

    k: int
    variance: float
    correlation: float
    bias: float
    plug_in_bias: float


def progress_experiment(*, seed: int, trajectories: int = 4000, rollouts: int = 16) -> list[Progress]:
    """Success rates walk on the logit scale, eight steps each from a hard start; K says how strong the prover is."""
    draw = np.random.default_rng(seed)
    logit = -5 + np.cumsum(draw.normal(0, 0.8, size=(trajectories, 9)), axis=1)
    rate = 1 / (1 + np.exp(-logit))
    hits = draw.binomial(rollouts, rate)
    results = []
    for k in (1, 4, 16, 64):
        prover = 1 - (1 - rate) ** k
        advantage, own = np.diff(prover, axis=1).ravel(), np.diff(rate, axis=1).ravel()
        table = np.array([best_of(rollouts, s, k) for s in range(rollouts + 1)])
        plug_in = 1 - (1 - hits / rollouts) ** k
        results.append(
            Progress(
                k=k,
                variance=float(advantage.var()),
                correlation=float(np.corrcoef(advantage, own)[0, 1]),
                bias=float((table[hits] - prover).mean()),
                plug_in_bias=float((plug_in - prover).mean()),
            )
        )
    return results


def noisy(problem: Chain, noise: float, seed: int) -> Scorer:
    """Step scores of a planted scorer: whether the chain is right so far, on the logit scale, with noise of its own for
    each step of each text."""

    def score(states: Sequence[State]) -> list[StepScores]:
        return [tuple(_score(problem, state[:end]) for end in range(1, len(state) + 1)) for state in states]

    def _score(problem: Chain, steps: State) -> float:
        draw = random.Random(content_hash(f"{seed} {problem.text} {''.join(steps)}"))
        truth = 1.5 if problem.first_error(steps) < 0 else -1.5
        return 1 / (1 + math.exp(-(truth + draw.gauss(0, noise))))

    return score


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """Accuracy of a method at a budget in a bin: the mean over seeds, and their lowest and highest; `written` steps a
    question."""

    bin: str
    method: str
    budget: int
    accuracy: float
    least: float
    most: float
    written: float


METHODS: dict[str, dict[str, Any]] = {
    "majority": {"aggregate": "majority"},
    "min-max": {"aggregate": "min-max"},
    "last-vote": {"aggregate": "last-vote"},
    "beam": {"method": "beam", "aggregate": "last-max"},
    "lookahead": {"method": "lookahead", "aggregate": "last-max", "ahead": 1},
    "puct": {"method": "puct", "aggregate": "last-max"},
}


def search_experiment(
    n: int, *, seeds: Sequence[int], noise: float, budgets: Sequence[int] = (1, 4, 16)
) -> tuple[list[Searched], list[dict[str, Any]]]:
    """Accuracies of all methods, and the study's recommendations of the first seed with what they reach held out."""
    by: dict[tuple[str, str, int], dict[int, list[tuple[float, int]]]] = defaultdict(lambda: defaultdict(list))
    cells: list[dict[str, Any]] = []
    for seed in seeds:
        problems = chains(n, length=LENGTH, errors=(0.04, 0.2, 0.45), seed=seed)
        problems = list({one.text: one for one in problems}.values())
        bins = {one.text: bin_of((1 - one.error) ** LENGTH) for one in problems}
        rows: list[Row] = []
        with Engine(ScriptedPolicy(problems), limits=Limits(concurrency=64)) as engine:
            for problem in problems:
                request = Request(prompt=problem.item.prompt, temperature=1.0, seed=1000 * seed)
                for budget in budgets:
                    for name, options in METHODS.items():
                        config = SearchConfig(budget=budget, max_steps=LENGTH + 1, **options)
                        result = select(GeneratorProposer(engine, request), noisy(problem, noise, seed), config)
                        answer = "" if result.chosen is None else result.chosen.answer
                        correct = float(answer == str(problem.answer))
                        by[bins[problem.text], name, budget][seed].append((correct, result.written))
                        rows.append(Row(problem.text, name, budget, correct, result.written))
        held = {one.text: int(content_hash(one.text)[:8], 16) % 2 == 1 for one in problems}
        cells += [{"seed": seed, **asdict(cell)} for cell in best_methods(rows, bins, held)]
    searched = []
    for (name, method, budget), own in by.items():
        means = [float(np.mean([correct for correct, _ in values])) for values in own.values()]
        written = float(np.mean([steps for values in own.values() for _, steps in values]))
        searched.append(
            Searched(
                bin=name,
                method=method,
                budget=budget,
                accuracy=float(np.mean(means)),
                least=min(means),
                most=max(means),
                written=written,
            )
        )
    order = {name: at for at, name in enumerate(("easy", "medium", "hard"))}
    return sorted(searched, key=lambda one: (order[one.bin], one.budget)), cells


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """Seconds to score a beam once, prefixes shared and plain, the largest difference of a score between the two ways,
    and the standard deviation of the scores."""

    width: int
    prefix: int
    suffix: int
    shared_s: float
    plain_s: float
    difference: float
    spread: float


def shared_experiment(*, width: int = 16, prefix: int = 512, suffix: int = 32, repeats: int = 3) -> Shared:
    """A small transformer with one output a token over a beam of `width` candidates."""
    import torch
    from transformers import LlamaConfig, LlamaForTokenClassification

    from rmkit.models.transformer.reward_module import RewardModule

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        num_labels=1,
        max_position_embeddings=1024,
    )
    model = LlamaForTokenClassification(config).eval()
    draw = random.Random(0)
    begun = [draw.randrange(3, 512) for _ in range(prefix)]
    rows = [[(*begun, *(draw.randrange(3, 512) for _ in range(suffix))) for _ in range(width)]]
    reads = [[(prefix + suffix - 1,)] * width]
    seconds, outputs = [], []
    for share in (True, False):
        module = RewardModule(model, share=share).eval()
        times = []
        for _ in range(repeats + 1):
            start = time.perf_counter()
            values = module.outputs(rows, reads=reads, max_batch_tokens=16384, precision="fp32")
            times.append(time.perf_counter() - start)
        seconds.append(min(times[1:]))
        outputs.append(np.array([one[0] for one in values[0]], dtype=np.float64).ravel())
    return Shared(
        width=width,
        prefix=prefix,
        suffix=suffix,
        shared_s=seconds[0],
        plain_s=seconds[1],
        difference=float(np.abs(outputs[0] - outputs[1]).max()),
        spread=float(outputs[0].std()),
    )


def _verdicts(path: File) -> dict[str, Any]:
    trees, rules = verdicts(path)
    return {"trees": asdict(trees), "rules": [asdict(one) for one in rules]}


def main(argv: list[str]) -> int:
    parser = arguments.parser(
        "bench trees",
        "First-error hit rate by rollouts and rule, prover progress, search over budgets, a beam with shared "
        "prefixes; the policy is scripted, so that the truth is known.",
        examples=[
            "bench trees --data nway_gsm8k.jsonl.gz --page trees.md",
            "bench trees --problems 60 --seeds 2 --json",
        ],
    )
    parser.add_argument("--problems", type=arguments.positive, default=150, help="of the labels")
    parser.add_argument("--questions", type=arguments.positive, default=60, help="of the searches, a seed")
    parser.add_argument("--seeds", type=arguments.positive, default=5, help="of the searches")
    parser.add_argument("--noise", type=float, default=1.5, help="of the step scorer, on the logit scale")
    parser.add_argument("--data", type=File, metavar="FILE", help="solutions with verdicts, form nway: as trees too")
    parser.add_page()
    options = parser.parse_args(argv)
    start = time.perf_counter()
    searched, cells = search_experiment(options.questions, seeds=range(options.seeds), noise=options.noise)
    result = {
        "labels": [asdict(one) for one in scripted_labels(options.problems, seed=0)],
        "progress": [asdict(one) for one in progress_experiment(seed=0)],
        "confidence": [asdict(confidence_experiment(visits=visits, seeds=options.seeds)) for visits in (4, 8, 16, 40)],
        "search": [asdict(one) for one in searched],
        "study": cells,
        "shared": asdict(shared_experiment()),
        "verdicts": None if options.data is None else _verdicts(options.data),
        "settings": {name: getattr(options, name) for name in ("problems", "questions", "seeds", "noise")},
        "seconds": round(time.perf_counter() - start, 1),
    }
    text = page(result)
    if options.page:
        write_text(options.page, text)
    display.emit(result, as_json=options.json, text=text)
    return 0
