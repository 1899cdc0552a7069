"""`rmkit step-agreement`: do people, rollouts, critiques and searches call the same steps right?

Each source is a dataset version of kind steps. Solutions that two of them label (equal prompt, text and step ends) are
compared step by step at a threshold, and by their first wrong step. Kappa is Cohen's: 1 is full agreement, 0 what
chance gives from how often each source calls a step right. The interval of the agreement resamples whole prompts (95%).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations

import numpy as np

from rmkit.cli import arguments, display
from rmkit.errors import DataError, UsageError
from rmkit.metrics.bootstrap import clustered_interval
from rmkit.metrics.steps import first_error
from warehouse.versions.dataset import load_dataset

Solution = tuple[str, str, tuple[int, ...]]  # prompt, response, step ends
Labels = Mapping[Solution, Sequence[float | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Two sources on the steps that both label. `same` is the share of equal verdicts with its interval (None from one
    prompt), `only_first_wrong` and `only_second_wrong` the shares that one side alone calls wrong; `first_error` the
    share of `solutions` whose first wrong step is the same for both (none counts as one)."""

    first: str
    second: str
    solutions: int
    steps: int
    same: float
    low: float | None
    high: float | None
    kappa: float
    only_first_wrong: float
    only_second_wrong: float
    first_error: float


def step_agreement(
    first: Labels, second: Labels, *, names: tuple[str, str] = ("first", "second"), threshold: float = 0.5
) -> Agreement:
    """Raises DataError where they share no labeled step."""
    equal: list[float] = []
    prompts: list[str] = []
    sides: list[tuple[bool, bool]] = []
    hits: list[float] = []
    for solution in first.keys() & second.keys():
        pairs = [
            (a, b) for a, b in zip(first[solution], second[solution], strict=True) if a is not None and b is not None
        ]
        if not pairs:
            continue
        right = [(a >= threshold, b >= threshold) for a, b in pairs]
        sides += right
        equal += [float(a == b) for a, b in right]
        prompts += [solution[0]] * len(right)
        errors = [first_error([pair[side] for pair in pairs], threshold=threshold) for side in range(2)]
        hits.append(float(errors[0] == errors[1]))
    if not sides:
        raise DataError(f"{names[0]} and {names[1]} share no labeled step: no solution of one is in the other")
    interval = clustered_interval(equal, prompts)
    right_n2 = np.array(sides)
    share = right_n2.mean(axis=0)
    by_chance = float(share.prod() + (1 - share).prod())
    same = float(np.mean(equal))
    return Agreement(
        first=names[0],
        second=names[1],
        solutions=len(hits),
        steps=len(sides),
        same=same,
        low=None if interval is None else interval.low,
        high=None if interval is None else interval.high,
        kappa=(same - by_chance) / (1 - by_chance) if by_chance < 1 else math.nan,
        only_first_wrong=float((~right_n2[:, 0] & right_n2[:, 1]).mean()),
        only_second_wrong=float((right_n2[:, 0] & ~right_n2[:, 1]).mean()),
        first_error=float(np.mean(hits)),
    )


def labels_of(version: str) -> dict[Solution, list[float | None]]:
    """The labels of a version's solutions. Raises DataError where it has none, VersionError for unknown data."""
    columns = ["prompt", "responses", "step_ends", "step_labels"]
    result = {
        (row["prompt"], row["responses"][0], tuple(row["step_ends"][0])): row["step_labels"]
        for row in load_dataset(version).rows.select(columns).to_pylist()
        if row["step_labels"]
    }
    if not result:
        raise DataError(f"{version} holds no labeled steps; rmkit convert tree_labels makes some")
    return result


def main(argv: list[str]) -> int:
    parser = arguments.parser(
        "step-agreement",
        "Do sources of step labels agree: people, rollouts under one rule or another, critiques, searches.",
        examples=["step-agreement people rollouts critiques", "step-agreement rollouts@v1 rollouts@v2 --json"],
    )
    parser.add_argument("versions", nargs="+", metavar="NAME@VERSION", help="datasets of kind steps, two or more")
    parser.add_argument("--threshold", type=float, default=0.5, help="a label of at least this is right (default 0.5)")
    options = parser.parse_args(argv)
    if len(set(options.versions)) < 2:
        raise UsageError("step-agreement compares two datasets or more")
    sources = {name: labels_of(name) for name in dict.fromkeys(options.versions)}
    results = [
        step_agreement(sources[a], sources[b], names=(a, b), threshold=options.threshold)
        for a, b in combinations(sources, 2)
    ]
    facts = {name: {"solutions": len(labels)} for name, labels in sources.items()}
    display.emit(
        {"sources": facts, "pairs": [asdict(one) for one in results]}, as_json=options.json, text=_text(results)
    )
    return 0


def _text(results: Sequence[Agreement]) -> str:
    header = ("sources", "solutions", "steps", "same", "interval", "kappa", "only 1st wrong", "only 2nd", "first error")
    rows = [
        (
            f"{one.first}, {one.second}",
            str(one.solutions),
            str(one.steps),
            f"{one.same:.3f}",
            "-" if one.low is None else f"{one.low:.3f} to {one.high:.3f}",
            f"{one.kappa:.3f}",
            f"{one.only_first_wrong:.3f}",
            f"{one.only_second_wrong:.3f}",
            f"{one.first_error:.3f}",
        )
        for one in results
    ]
    return display.markdown(header, rows)
