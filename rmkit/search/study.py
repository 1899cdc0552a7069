"""`rmkit search study`: which method pays at which difficulty and budget, chosen on half of the prompts.

Rows (question, method, budget, correct, written) are what is measured; the best method of each bin and budget is chosen
on the tuning half and tried on the held-out half, beside the plain majority. Bins follow the pass rate of separate
samples: easy >= .5, medium .1 to .5, hard < .1 (arXiv:2408.03314; released bins of arXiv:2502.06703). A process model
reads best what its own policy writes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rmkit.atomic import write_text
from rmkit.cli import arguments, display
from rmkit.errors import DataError, UsageError
from rmkit.generate.tally import spent
from rmkit.metrics.bootstrap import clustered_interval
from rmkit.models import load_model
from rmkit.search.aggregate import AGGREGATES, MAJORITY, choose
from rmkit.search.problems import (
    Policy,
    Problem,
    Searches,
    add_arguments,
    generator_config,
    policy_of,
    read_problems,
    verified,
)
from rmkit.search.select import Method, SearchConfig, select
from rmkit.types import RewardModel
from rmkit.verifiers.verifier import load_verifier

BINS = (("easy", 0.5), ("medium", 0.1), ("hard", 0.0))  # from this pass rate on
SEARCHES: tuple[Method, ...] = ("beam", "lookahead", "puct", "uct")
BIN_SEED = 1_000_000  # of the samples that say how hard a prompt is: none of them competes


class Row(NamedTuple):
    """One question under one method and budget; `correct` is NaN where nothing could be verified."""

    question: str
    method: str
    budget: int
    correct: float
    written: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """The method chosen for a bin and budget: what it reached where it was chosen, and on the held-out prompts with its
    interval, beside the majority there."""

    bin: str
    budget: int
    method: str
    tuned: float
    held_out: float | None
    low: float | None
    high: float | None
    majority: float | None
    n_tuned: int
    n_held_out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    questions: Mapping[str, int]
    rates: Mapping[str, float]
    bins: Mapping[str, str]
    rows: tuple[Row, ...]
    cells: tuple[Cell, ...]


def bin_of(rate: float) -> str:
    """The bin of a pass rate."""
    return next(name for name, least in BINS if rate >= least)


def held_out(problem: Problem) -> bool:
    """Half of all prompts, by their hash: the same half in every study."""
    return int(problem.key[:8], 16) % 2 == 1


def best_methods(
    rows: Sequence[Row], bins: Mapping[str, str], held: Mapping[str, bool], *, resamples: int = 2000
) -> list[Cell]:
    """A cell for each bin and budget with questions on the tuning side. Rows without a verdict count as wrong: a method
    that answers nothing must not win by it."""
    cells = []
    for name, _ in BINS:
        for budget in sorted({row.budget for row in rows}):
            here = [row for row in rows if row.budget == budget and bins[row.question] == name]
            tuned = _means([row for row in here if not held[row.question]])
            if not tuned:
                continue
            method = max(tuned, key=lambda one: tuned[one])  # of equals the first: the cheaper ones stand first
            out = [row for row in here if held[row.question]]
            chosen = [row for row in out if row.method == method]
            values = [_value(row) for row in chosen]
            interval = (
                clustered_interval(values, [row.question for row in chosen], resamples=resamples) if values else None
            )
            plain = _means(out).get(MAJORITY)
            cells.append(
                Cell(
                    bin=name,
                    budget=budget,
                    method=method,
                    tuned=tuned[method],
                    held_out=float(np.mean(values)) if values else None,
                    low=None if interval is None else interval.low,
                    high=None if interval is None else interval.high,
                    majority=plain,
                    n_tuned=len({row.question for row in here if not held[row.question]}),
                    n_held_out=len({row.question for row in out}),
                )
            )
    return cells


def _value(row: Row) -> float:
    return 0.0 if math.isnan(row.correct) else row.correct


def _means(rows: Sequence[Row]) -> dict[str, float]:
    """Accuracy by method, in the order in which methods come."""
    by: dict[str, list[float]] = {}
    for row in rows:
        by.setdefault(row.method, []).append(_value(row))
    return {method: float(np.mean(values)) for method, values in by.items()}


@dataclass(frozen=True, kw_only=True)
class Plan:
    budgets: tuple[int, ...]
    aggregates: tuple[str, ...]
    searches: tuple[Method, ...]
    search_aggregate: str
    bin_samples: int
    width: int
    max_steps: int


def question_rows(
    problem: Problem, searches: Searches, policy: Policy, verifier: RewardModel, plan: Plan
) -> tuple[float, list[Row]]:
    """(pass rate, rows) of one question. All aggregates of a budget choose among the same samples; a smaller budget has
    the first of them."""
    propose, scorer = policy.proposer(searches.engine, problem), searches.scorer(problem)
    apart = policy.proposer(searches.engine, problem, seed=policy.seed + BIN_SEED)
    [easy] = apart.solutions([()], plan.bin_samples)
    outcomes = verified(verifier, problem, ["".join(state) for state in easy])
    rate = float(np.nanmean(outcomes)) if any(not math.isnan(value) for value in outcomes) else 0.0
    rows = []
    config = SearchConfig(
        budget=max(plan.budgets), aggregate=plan.aggregates[0], max_steps=plan.max_steps, width=plan.width
    )
    pool = select(propose, scorer, config)
    known: dict[str, float] = {}

    def correct(steps: tuple[str, ...]) -> float:
        text = "".join(steps)
        if text not in known:
            [known[text]] = verified(verifier, problem, [text])
        return known[text]

    for budget in plan.budgets:
        first = pool.candidates[:budget]
        written = sum(len(one.steps) for one in first)
        for aggregate in plan.aggregates:
            chosen = choose(first, aggregate)
            rows.append(
                Row(problem.id, aggregate, budget, math.nan if chosen is None else correct(chosen.steps), written)
            )
        for method in plan.searches:
            search = replace(config, method=method, budget=budget, aggregate=plan.search_aggregate)
            result = select(policy.proposer(searches.engine, problem), scorer, search)
            value = math.nan if result.chosen is None else correct(result.chosen.steps)
            rows.append(Row(problem.id, method, budget, value, result.written))
    return rate, rows


def study(problems: Sequence[Problem], searches: Searches, policy: Policy, verifier: RewardModel, plan: Plan) -> Study:
    """Every question under every method and budget, and the best of them by bin."""
    if len({problem.id for problem in problems}) < len(problems):
        raise DataError("two prompts share an id")
    rows: list[Row] = []
    rates: dict[str, float] = {}
    work = searches.each(lambda one: question_rows(one, searches, policy, verifier, plan), problems)
    with display.progress("study", len(problems)) as advance:
        for problem, (rate, own) in zip(problems, work, strict=True):
            rates[problem.id] = rate
            rows += own
            advance(1)
    bins = {question: bin_of(rate) for question, rate in rates.items()}
    held = {problem.id: held_out(problem) for problem in problems}
    counts = {name: sum(one == name for one in bins.values()) for name, _ in BINS}
    cells = best_methods(rows, bins, held)
    return Study(questions=counts, rates=rates, bins=bins, rows=tuple(rows), cells=tuple(cells))


def main(argv: list[str]) -> int:
    parser = arguments.parser(
        "search study",
        "Accuracy by method, difficulty and budget; the best method of each is chosen on half of the prompts and tried "
        "on the other half. Writes rows.jsonl, cells.json and, with matplotlib, study.png.",
        examples=["search study --model models/steps --generator policy.toml --prompts problems.jsonl -o study"],
    )
    add_arguments(parser)
    parser.add_output("folder of the results", required=True, type=arguments.local_path)
    parser.add_argument("--budgets", default="1,4,16", help="solutions' worth of steps, with commas")
    parser.add_argument("--searches", default="beam,puct", help=f"of {', '.join(SEARCHES)}, with commas; none: ''")
    parser.add_argument(
        "--bin-samples", type=arguments.positive, default=16, help="solutions that say how hard a prompt is"
    )
    parser.add_argument("--width", type=arguments.positive, default=4, help="next steps of a state")
    parser.add_argument("--max-steps", type=arguments.positive, default=32, help="longest solution, in steps")
    options = parser.parse_args(argv)
    budgets = tuple(sorted({int(number) for number in arguments.numbers(options.budgets)}))
    names = list(filter(None, options.searches.split(",")))
    if wrong := [name for name in names if name not in SEARCHES]:
        raise UsageError(f"--searches takes {', '.join(SEARCHES)}, got {wrong[0]!r}")
    methods = tuple(method for method in SEARCHES if method in names)
    if budgets[0] < 1:
        raise UsageError(f"--budgets must be positive, got {options.budgets}")
    problems = read_problems(options.prompts, limit=options.limit)
    model = None if options.model is None else load_model(options.model)
    plan = Plan(
        budgets=budgets,
        aggregates=AGGREGATES if model else (MAJORITY,),
        searches=methods if model else (),
        search_aggregate="last-max",
        bin_samples=options.bin_samples,
        width=options.width,
        max_steps=options.max_steps,
    )
    verifier = load_verifier(options.verifier, trusted=True)
    policy = policy_of(options)
    with Searches(
        generator_config(options.generator), model, workers=options.workers, purpose="search study"
    ) as searches:
        result = study(problems, searches, policy, verifier, plan)
        calls = spent([searches.engine.tally])
    options.output.mkdir(parents=True, exist_ok=True)
    held = {problem.id: held_out(problem) for problem in problems}
    lines = [
        json.dumps(
            row._asdict()
            | {"correct": None if math.isnan(row.correct) else row.correct, "bin": result.bins[row.question]}
            | {"pass_rate": result.rates[row.question], "held_out": held[row.question]}
        )
        for row in result.rows
    ]
    write_text(options.output / "rows.jsonl", "\n".join(lines) + "\n")
    cells = [asdict(cell) for cell in result.cells]
    write_text(options.output / "cells.json", json.dumps(cells, indent=1) + "\n")
    plotted = plot(result, options.output / "study.png")
    summary = {
        "questions": result.questions,
        "cells": cells,
        "output": str(options.output),
        "plot": plotted,
        "spent": calls,
    }
    display.emit(summary, as_json=options.json, text=text_of(result, options.output))
    return 0


def text_of(result: Study, output: Path) -> str:
    counts = ", ".join(f"{n} {name}" for name, n in result.questions.items())
    header = ("bin", "budget", "best where tuned", "tuned", "held out", "interval", "majority held out")
    rows = [
        (
            cell.bin,
            str(cell.budget),
            cell.method,
            f"{cell.tuned:.3f} (n {cell.n_tuned})",
            "-" if cell.held_out is None else f"{cell.held_out:.3f} (n {cell.n_held_out})",
            "-" if cell.low is None else f"{cell.low:.3f} to {cell.high:.3f}",
            "-" if cell.majority is None else f"{cell.majority:.3f}",
        )
        for cell in result.cells
    ]
    return f"{output}: {counts} prompts\n\n{display.markdown(header, rows)}"


def plot(result: Study, path: Path) -> str | None:
    """Accuracy of all prompts over budgets, a line a method, a panel a bin; None where matplotlib is not installed."""
    try:
        import matplotlib as mpl
    except ModuleNotFoundError:
        return None
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    names = [name for name, _ in BINS if result.questions[name]]
    methods = list(dict.fromkeys(row.method for row in result.rows))
    budgets = sorted({row.budget for row in result.rows})
    size = (3.6 * len(names) + 1.6, 3.6)
    figure, axes = plt.subplots(1, len(names), figsize=size, sharey=True, squeeze=False, layout="constrained")
    for axis, name in zip(axes[0], names, strict=True):
        here = [row for row in result.rows if result.bins[row.question] == name]
        means = {budget: _means([row for row in here if row.budget == budget]) for budget in budgets}
        for at, method in enumerate(methods):
            line = "-" if method == MAJORITY else ":" if method in SEARCHES else "--" if "vote" in method else "-."
            values = [means[budget][method] for budget in budgets]
            color = plt.get_cmap("tab20")(2 * at % 20 + (at >= 10))
            axis.plot(budgets, values, marker=".", label=method, linewidth=1.2, linestyle=line, color=color)
        axis.set_title(f"{name} (n = {result.questions[name]})")
        axis.set_xscale("log", base=2)
        axis.set_xticks(budgets, list(map(str, budgets)))
        axis.minorticks_off()
        axis.set_xlabel("budget, solutions")
    axes[0][0].set_ylabel("accuracy")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return str(path)
