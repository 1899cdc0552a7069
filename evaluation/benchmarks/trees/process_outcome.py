"""`rmkit bench process-outcome`: a process model beside an outcome model on the same rollouts of a policy trained here.

A seed's problems are sampled, labeled and trained on by the recipe step `rollouts`, the converter `tree_labels` and
`rmkit train process`, as a user would. All arms start from the policy's weights, have one head and may let the policy
write at most as many steps: 16 solutions of each problem, or 4 with a continuation of each of their 6 prefixes, which
are 4 * 7 + 4 * (6 + 5 + 4 + 3 + 2 + 1) steps, less what prefixes share.

    outcome   16 solutions; the verdict labels the last step alone
    cool      4 solutions, continued at temperature .3, by a stronger prover; labels are the mean outcome

On held-out problems each model chooses among 16 solutions of the policy, which are the same for all of them, and names
the first wrong step of the wrong ones.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

import rmkit
from data_pipelines.algorithms.trees import SAMPLED
from data_pipelines.converters import tree_labels
from data_pipelines.converters.runner import convert
from evaluation.benchmarks.policy.arithmetic import T_95, Gain
from evaluation.benchmarks.trees.page import hits_table
from evaluation.benchmarks.trees.planted import Chain
from evaluation.benchmarks.trees.run import labels_experiment
from evaluation.benchmarks.trees.trained_policy import signed_chains, train_policy
from rmkit.atomic import write_text
from rmkit.cli import arguments, display
from rmkit.generate import Engine, Limits, Request
from rmkit.generate.local import load_local
from rmkit.metrics.steps import auc, first_error
from rmkit.search.adapters import GeneratorProposer, ModelScorer
from rmkit.search.aggregate import AGGREGATES, MAJORITY, choose
from rmkit.search.select import read_answer
from rmkit.search.space import Candidate, State
from rmkit.types import RewardModel

CANDIDATES = 16
MAX_TOKENS = 24
TEST_SEED = 10_000
LABEL_SEED = 20_000
LABEL_ROLLOUTS = (1, 2, 4, 8)


@dataclass(frozen=True, kw_only=True)
class Arm:
    """How an arm samples and labels; `aggregate` is what it was chosen to select by before any result. `prover` is the
    temperature of continuations, None where there are none."""

    name: str
    samples: int
    prover: float | None
    aggregate: str


ARMS = (
    Arm(name="outcome", samples=16, prover=None, aggregate="last-max"),
    Arm(name="cool", samples=4, prover=0.3, aggregate="min-max"),
)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One arm of one seed. `written` steps a problem; `first` and `any_right` are the candidates' without any model;
    `accuracy` by aggregate of 16 candidates; `hits` how often the first wrong step of wrong solutions is named at .5,
    `step_auc` of right against wrong steps of all of them."""

    arm: str
    seed: int
    written: float
    rows: int
    first: float
    any_right: float
    accuracy: Mapping[str, float]
    hits: float
    step_auc: float


@dataclass(frozen=True, kw_only=True)
class Result:
    """`gains` of an arm over the outcome model, paired by seed: best of 16 by each one's own aggregate, last-vote,
    first errors, AUC of steps; and of its last-vote over the majority."""

    problems: int
    questions: int
    majority: tuple[float, ...]
    any_right: tuple[float, ...]
    first: tuple[float, ...]
    measured: tuple[Measured, ...] = field(repr=False)
    labels: tuple[Mapping[str, Any], ...] = field(repr=False)
    gains: Mapping[str, Mapping[str, Gain]]


def sampled_steps(folder: Path, arm: Arm, problems: Sequence[Chain], policy: Path, *, seed: int) -> tuple[str, float]:
    """The version of labeled steps that an arm trains on, and the steps that the policy wrote for a problem."""
    name = f"seed-{seed}-{arm.name.replace('_', '-')}"
    source = folder / f"problems-{seed}.jsonl"
    write_text(source, lines([{"prompt": one.text, "reference": str(one.answer)} for one in problems]))
    columns = {"prompt": "prompt", "response": "reference", "reference": "reference"}
    data = str(rmkit.ingest(source, name=f"seed-{seed}-problems", columns=columns).version)
    generator = {"model": str(policy), "backend": "local", "concurrency": 256, "batch_size": 128}
    sampling = {"use": "rollouts", "verifier": "answer", "max_tokens": MAX_TOKENS, "generator": generator}
    solutions = {"samples": arm.samples, "continuations": 0, "temperature": 1.0, "seed": 1000 * seed}
    steps: list[dict[str, object]] = [sampling | solutions]
    if arm.prover is not None:
        prover = {"samples": 0, "continuations": 1, "temperature": arm.prover, "seed": 1000 * seed + 500}
        steps.append(sampling | prover)
    steps.append(
        {"use": "split", "train": 0.9, "validation": 0.1, "test": 0.0, "threshold": 1.0, "same_opening": False}
    )
    rollouts = rmkit.run_recipe({"recipe": {"name": name}, "step": steps}, data, out=name).version
    config = tree_labels.Config(rule="mean", last_only=arm.prover is None)
    return str(convert("tree_labels", rollouts, f"{name}-steps", config)["version"]), _written(rollouts, len(problems))


def lines(rows: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _written(version: str, n_problems: int) -> float:
    """Steps written for a problem: of a continuation those behind its prefix, of what was there already all."""
    total = 0.0
    for row in rmkit.load_dataset(version).to_polars().iter_rows(named=True):
        for score in row["scores"]:
            if score["aspect"].startswith(SAMPLED):
                start, n = int(score["aspect"].removeprefix(SAMPLED)), len(row["step_ends"][score["response"]])
                total += score["value"] * (n - start if start < n else n)
    return total / n_problems


def trained(version: str, output: Path, policy: Path, *, arm: Arm, seed: int) -> tuple[RewardModel, int]:
    """The process model of an arm, from the policy's weights, and how many rows it learned from; all arms take about as
    many optimizer steps."""
    result = rmkit.train(
        "process",
        version,
        model=str(policy),
        output=output,
        seed=seed,
        learning_rate=1.5e-3,
        num_train_epochs=3.0 * CANDIDATES / arm.samples,
        global_batch_size=64,
        evaluations_per_epoch=1,
        max_length=100,
        response_reserve_tokens=60,
        precision="fp32",
        restart=True,
    )
    return result.load(), int(result.facts["training"]["rows"]["train"])


def drawn(questions: Sequence[Chain], policy: Path, *, seed: int) -> list[list[State]]:
    """Solutions of each question that no model has seen."""
    with Engine(load_local(policy, batch_size=64), limits=Limits(concurrency=128)) as engine:
        results = []
        for one in questions:
            request = Request(prompt=one.item.prompt, temperature=1.0, max_tokens=MAX_TOKENS, seed=TEST_SEED + seed)
            [states] = GeneratorProposer(engine, request).solutions([()], CANDIDATES)
            results.append(states)
    return results


def measured(
    arm: Arm, model: RewardModel, questions: Sequence[Chain], states: Sequence[Sequence[State]], **facts: Any
) -> Measured:
    """What a model chooses among the candidates, and where it sees their first errors."""
    right: dict[str, list[float]] = {name: [] for name in AGGREGATES}
    hits: list[float] = []
    scores: list[float] = []
    sound: list[bool] = []
    solved: list[list[bool]] = []
    for question, own in zip(questions, states, strict=True):
        stepwise = ModelScorer(model, question.item)(own)
        candidates = [
            Candidate(steps, numbers, read_answer("".join(steps))) for steps, numbers in zip(own, stepwise, strict=True)
        ]
        solved.append([one.answer == str(question.answer) for one in candidates])
        for name, values in right.items():
            chosen = choose(candidates, name)
            values.append(float(chosen is not None and chosen.answer == str(question.answer)))
        for steps, numbers in zip(own, stepwise, strict=True):
            truth = question.first_error(steps)
            scores += numbers
            sound += [truth < 0 or at < truth for at in range(len(numbers))]
            if truth >= 0:
                hits.append(float(first_error(numbers) == truth))
    accuracy = {name: float(np.mean(values)) for name, values in right.items()}
    return Measured(
        arm=arm.name,
        first=float(np.mean([row[0] for row in solved])),
        any_right=float(np.mean([any(row) for row in solved])),
        accuracy=accuracy,
        hits=float(np.mean(hits)),
        step_auc=auc(scores, sound),
        **facts,
    )


def measure(folder: Path, *, problems: int, questions: int, labels: int, seeds: int, policy_steps: int) -> Result:
    """Every arm of every seed; policy, models and data stay under `folder`."""
    policy = folder / "policy"
    if not policy.exists():
        train_policy(policy, seed=0, steps=policy_steps)
    asked = signed_chains(questions, seed=TEST_SEED)
    write_text(folder / "questions.jsonl", lines([{"prompt": q.text, "reference": str(q.answer)} for q in asked]))
    held_out = {one.text for one in asked}
    results: list[Measured] = []
    with display.progress("arms", seeds * len(ARMS)) as advance:
        for arm, seed in product(ARMS, range(seeds)):
            stored = folder / f"{arm.name}-{seed}.json"
            if not stored.exists():  # a run that was stopped goes on from here
                own = [one for one in signed_chains(problems, seed=seed) if one.text not in held_out]
                version, written = sampled_steps(folder, arm, own, policy, seed=seed)
                model, rows = trained(version, folder / f"{arm.name}-{seed}", policy, arm=arm, seed=seed)
                states = drawn(asked, policy, seed=seed)
                one = measured(arm, model, asked, states, seed=seed, written=written, rows=rows)
                write_text(stored, json.dumps(asdict(one)))
            results.append(Measured(**json.loads(stored.read_text())))
            advance(1)
    stored = folder / "labels.json"
    if not stored.exists():
        hits = labels_experiment(
            signed_chains(labels, seed=LABEL_SEED),
            lambda: load_local(policy, batch_size=128),
            rollouts=LABEL_ROLLOUTS,
            seed=0,
        )
        write_text(stored, json.dumps([asdict(one) for one in hits]))
    of = {(one.arm, one.seed): one for one in results}
    base = ARMS[0]
    first = [of[base.name, seed] for seed in range(seeds)]
    return Result(
        problems=problems,
        questions=len(asked),
        majority=tuple(one.accuracy[MAJORITY] for one in first),
        any_right=tuple(one.any_right for one in first),
        first=tuple(one.first for one in first),
        measured=tuple(results),
        labels=tuple(json.loads(stored.read_text())),
        gains={arm.name: _gains(arm, base, of, seeds) for arm in ARMS[1:]},
    )


def _gains(arm: Arm, base: Arm, of: Mapping[tuple[str, int], Measured], seeds: int) -> dict[str, Gain]:
    pairs = [(of[arm.name, seed], of[base.name, seed]) for seed in range(seeds)]
    vote = [own.accuracy["last-vote"] - other.accuracy["last-vote"] for own, other in pairs]
    return {
        "chosen": Gain.of([own.accuracy[arm.aggregate] - other.accuracy[base.aggregate] for own, other in pairs]),
        "last-vote": Gain.of(vote),
        "over_majority": Gain.of([own.accuracy["last-vote"] - other.accuracy[MAJORITY] for own, other in pairs]),
        "hits": Gain.of([own.hits - other.hits for own, other in pairs]),
        "step_auc": Gain.of([own.step_auc - other.step_auc for own, other in pairs]),
    }


def main(argv: list[str]) -> int:
    parser = arguments.parser(
        "bench process-outcome",
        "A process model beside an outcome model on the same budget of rollouts, of a small policy trained here.",
        examples=["bench process-outcome -o runs", "bench process-outcome --seeds 2 --problems 40 -o runs --json"],
    )
    parser.add_output("policy, models, data and questions.jsonl", required=True)
    parser.add_argument("--problems", type=arguments.positive, default=100, help="to train on, a seed")
    parser.add_argument("--questions", type=arguments.positive, default=40, help="held out, the same for all seeds")
    parser.add_argument("--labels", type=arguments.positive, default=40, help="problems to name first errors in")
    parser.add_argument("--seeds", type=int, choices=sorted(T_95), default=5)
    parser.add_argument("--policy-steps", type=arguments.positive, default=500, help="of training the policy")
    options = parser.parse_args(argv)
    folder: Path = options.output.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["RMKIT_HOME"] = str(folder / "home")
    result = measure(
        folder,
        problems=options.problems,
        questions=options.questions,
        labels=options.labels,
        seeds=options.seeds,
        policy_steps=options.policy_steps,
    )
    display.emit(asdict(result), as_json=options.json, text=text_of(result))
    return 0


def text_of(result: Result) -> str:
    """Markdown: arms with means over seeds (lowest to highest), and gains over the outcome model."""
    rows = []
    for arm in ARMS:
        own = [one for one in result.measured if one.arm == arm.name]
        cells = ([one.accuracy[name] for one in own] for name in (arm.aggregate, "last-max", "last-vote"))
        rows.append(
            (
                arm.name,
                f"{np.mean([one.written for one in own]):.0f}",
                f"{np.mean([one.rows for one in own]):.0f}",
                *map(_spread, cells),
                _spread([one.hits for one in own]),
                _spread([one.step_auc for one in own]),
            )
        )
    arms = display.markdown(
        (
            "arm",
            "steps written a problem",
            "rows",
            "best of 16",
            "last-max",
            "last-vote",
            "first errors",
            "AUC of steps",
        ),
        rows,
    )
    gains = display.markdown(
        ("arm minus outcome", "best of 16", "last-vote", "last-vote minus majority", "first errors", "AUC of steps"),
        [
            (name, *(f"{one.mean:+.3f} ({one.low:+.3f} to {one.high:+.3f})" for one in gain.values()))
            for name, gain in result.gains.items()
        ],
    )
    plain = (
        f"One sample {_spread(result.first)}, majority of 16 {_spread(result.majority)}, any of 16 right "
        f"{_spread(result.any_right)}."
    )
    return f"{arms}\n\n{plain}\n\n{gains}\n\n{hits_table(result.labels)}"


def _spread(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"
