"""`rmkit bench process`: does a process model know more than where a step stands and how long it is?

Each file of labeled steps (id, prompt, steps, labels) is cross-validated by problem: every fold is tested once, the
next one serves every choice, the others train. Problems are prompts joined where they are near-duplicates (Jaccard 0.7
of 3-word shingles) or where ids name the same PRMBench original, whose variants reword the question.

    constant            the base rate of the training folds
    length              characters of the step
    position, length    number of the step, its characters, characters before it
    lexical             hashed words and pairs of words of the step, logistic regression
    lexical, position   the same with position and length
    frozen              `rmkit train process-frozen`: a head over a frozen encoder's features of the step, position,
                        length and two cosines

Every arm's head is chosen on the validation fold. Measures of the out-of-fold predictions: log loss and AUC over all
labeled steps, and ProcessBench's first-error F1 at the threshold that is best on the validation fold. Intervals (95%)
resample whole problems 2,000 times, the same ones for all arms.
"""

from __future__ import annotations

import gzip
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.benchmarks.process.measures import Arm, compare, measures
from evaluation.benchmarks.process.page import page
from rmkit.cli import arguments, display
from rmkit.errors import DataError
from rmkit.features.encoder import Encoder
from rmkit.heads.steps import SURFACE, FrozenProcessConfig, Solution, fit, step_inputs
from rmkit.metrics import log_loss
from rmkit.metrics.calibration import sigmoid
from rmkit.metrics.steps import first_error, first_error_scores

Floats = NDArray[np.float64]

ARMS = ("constant", "length", "position, length", "lexical", "lexical, position", "frozen")
C_GRID = (0.3, 3.0, 30.0)
_ORIGINAL = re.compile(r"prm_(?:test|train)_p\d+_\d+")


@dataclass(frozen=True, slots=True)
class Labeled:
    """One solution: `labels` [steps] 1 right, 0 wrong, NaN where there is none; `problem` is its cluster."""

    solution: Solution
    labels: Floats
    problem: int


def main(argv: list[str]) -> int:
    parser = arguments.parser(
        "bench process",
        "A process model beside constant, length and lexical baselines, cross-validated by problem.",
        examples=[
            "bench process --data steps_processbench_gsm8k_math.jsonl.gz steps_prmbench.jsonl.gz",
            "bench process --data steps.jsonl --folds 3 --limit 200 --page process.md",
        ],
    )
    parser.add_argument("--data", required=True, nargs="+", type=Path, help="JSON lines (.gz): prompt, steps, labels")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_seed()
    parser.add_encoder()
    parser.add_limit(help="only the first N rows of each file, for a quick look")
    parser.add_page()
    inputs = parser.parse_args(argv)
    if inputs.folds < 3:
        raise DataError(f"three folds are needed to train, choose and test, got {inputs.folds}")
    config = FrozenProcessConfig(encoder=inputs.encoder)
    files = {
        path.name: run(path, config, folds=inputs.folds, seed=inputs.seed, limit=inputs.limit) for path in inputs.data
    }
    result = {"command": arguments.command_line("bench process", argv), "seed": inputs.seed, "folds": inputs.folds}
    result |= {"encoder": inputs.encoder, "files": files}
    if inputs.page:
        inputs.page.write_text(page(result))
    display.emit(result, as_json=inputs.json, text=page(result))
    return 0


def run(
    path: Path, config: FrozenProcessConfig, *, folds: int, seed: int, limit: int | None = None
) -> dict[str, object]:
    """Measures of every arm on one file, and the differences from the model `frozen`."""
    start = time.perf_counter()
    rows = read(path, limit=limit)
    encoder = Encoder(config)
    texts = len({text for row in rows for text in (row.solution.prompt, *row.solution.steps)})
    with display.progress(f"encoding {path.name}", texts) as advance:
        inputs = step_inputs(
            [row.solution for row in rows], lambda t: encoder.features(t, advance=advance), width=encoder.width
        )
    encoded_s = time.perf_counter() - start
    arms, heads = _cross_validated(rows, inputs, config, folds=folds, seed=seed)
    labels, problem = [row.labels for row in rows], np.array([row.problem for row in rows])
    names = {name: measures(arm, labels, problem) for name, arm in arms.items()}
    others = [name for name in arms if name != "frozen"]
    return {
        "rows": len(rows),
        "problems": len(set(problem.tolist())),
        "steps": int(sum((~np.isnan(of)).sum() for of in labels)),
        "wrong_steps": int(sum((of < 0.5).sum() for of in labels)),
        "erroneous": sum(first_error(of.tolist()) >= 0 for of in labels),
        "arms": names,
        "differences": {name: compare(arms["frozen"], arms[name], labels, problem) for name in others},
        "heads": heads,
        "encoding_s": round(encoded_s, 1),
        "total_s": round(time.perf_counter() - start, 1),
    }


def read(path: Path, *, limit: int | None = None) -> list[Labeled]:
    """The solutions of a file. Raises DataError where it cannot be read or a row has not one label a step."""
    ids, result = [], []
    for number, row in enumerate(_lines(path), 1):
        try:
            steps, labels = tuple(map(str, row["steps"])), row["labels"]
            values = np.array([np.nan if label is None else float(label) for label in labels])
            solution = Solution(str(row["prompt"]), steps)
            if len(values) != len(steps):
                raise ValueError(f"{len(values)} labels for {len(steps)} steps")
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}, row {number}: expected prompt, steps and a label for each: {error}") from error
        if len(steps):
            ids.append(str(row.get("id", "")))
            result.append(Labeled(solution, values, 0))
        if limit and len(result) >= limit:
            break
    if not result:
        raise DataError(f"{path} holds no solution in steps")
    problems = _problems([row.solution.prompt for row in result], ids)
    return [replace(row, problem=int(problem)) for row, problem in zip(result, problems, strict=True)]


def _lines(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
            yield from (json.loads(line) for line in file if line.strip())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path} cannot be read as JSON lines: {error}") from error


def _problems(prompts: Sequence[str], ids: Sequence[str]) -> NDArray[np.int64]:
    """[n] cluster of every row: near-duplicate prompts, and variants of one PRMBench original."""
    import polars as pl

    from data_pipelines.algorithms.minhash import components, near_pairs

    pairs = near_pairs(pl.Series(prompts), 0.7)
    first: dict[str, int] = {}
    named = [(row, match[0]) for row, name in enumerate(ids) if (match := _ORIGINAL.search(name))]
    edges = [(row, first.setdefault(name, row)) for row, name in named]
    i, j = (np.array([edge[side] for edge in edges], dtype=np.uint32) for side in (0, 1))
    both = [np.concatenate([pairs[name].to_numpy().astype(np.uint32), own]) for name, own in (("i", i), ("j", j))]
    return components(len(prompts), both[0], both[1])


def fold_of(problem: NDArray[np.int64], folds: int, *, seed: int) -> NDArray[np.int64]:
    """[n] fold of every row; a problem lies in one fold, folds have nearly the same number of rows."""
    names, count = np.unique(problem, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    sizes, place = np.zeros(folds), {}
    for index in sorted(order, key=lambda at: -count[at]):
        place[names[index]] = int(sizes.argmin())
        sizes[place[names[index]]] += count[index]
    return np.array([place[one] for one in problem])


def _cross_validated(
    rows: Sequence[Labeled], inputs: Sequence[Any], config: FrozenProcessConfig, *, folds: int, seed: int
) -> tuple[dict[str, Arm], dict[str, list[str]]]:
    """Out-of-fold predictions of every arm, and the heads that validation chose."""
    fold = fold_of(np.array([row.problem for row in rows]), folds, seed=seed)
    hashed = _hashed(rows)
    steps: dict[str, list[Any]] = {name: [None] * len(rows) for name in ARMS}
    predicted: dict[str, list[int]] = {name: [0] * len(rows) for name in ARMS}
    heads: dict[str, list[str]] = {name: [] for name in ARMS}
    with display.progress("folds", folds * len(ARMS)) as advance:
        for test in range(folds):
            held = (test + 1) % folds
            parts = [np.flatnonzero(part) for part in ((fold != test) & (fold != held), fold == held, fold == test)]
            for name in ARMS:
                logits, head = _predict(name, rows, inputs, hashed, parts, config, seed=seed)
                held_out, tested = parts[1].tolist(), parts[2].tolist()
                threshold = _threshold([logits[at] for at in held_out], [rows[at].labels for at in held_out])
                heads[name].append(head)
                for at in tested:
                    steps[name][at] = sigmoid(logits[at])
                    predicted[name][at] = first_error(steps[name][at].tolist(), threshold=threshold)
                advance(1)
    return {name: Arm(steps[name], predicted[name]) for name in ARMS}, heads


def _predict(
    name: str,
    rows: Sequence[Labeled],
    inputs: Sequence[Any],
    hashed: Sequence[Any],
    parts: Sequence[NDArray[np.int64]],
    config: FrozenProcessConfig,
    *,
    seed: int,
) -> tuple[dict[int, Floats], str]:
    """Logits of the validation and test solutions by row, from an arm fitted on the training ones."""
    labels = [np.concatenate([rows[at].labels for at in part]) for part in parts]
    at_surface = inputs[0].shape[1] - SURFACE
    match name:
        case "constant":
            rate = float(np.nanmean(labels[0]))
            flat = [np.full(len(of), np.log(rate / (1 - rate))) for of in labels[1:]]
            head = "base rate"
        case "lexical" | "lexical, position":
            extra = inputs if name == "lexical, position" else None
            flat, head = _lexical(hashed, extra, parts, labels, surface=slice(at_surface, at_surface + 4))
        case _:
            first, columns = {"length": (2, 1), "position, length": (0, 4), "frozen": (-at_surface, SURFACE)}[name]
            begin = at_surface + first
            used = slice(begin, None if name == "frozen" else begin + columns)
            tables = [np.concatenate([inputs[at][:, used] for at in part]) for part in parts]
            fitted = fit((tables[0], labels[0]), (tables[1], labels[1]), config, seed=seed, surface=columns)
            flat, head = [fitted.logits(of) for of in tables[1:]], str(fitted.facts["head"])
    by_row: dict[int, Floats] = {}
    for part, logits in zip(parts[1:], flat, strict=True):
        ends = np.cumsum([len(rows[at].labels) for at in part])
        by_row |= dict(zip(part.tolist(), np.split(logits, ends[:-1]), strict=True))
    return by_row, head


def _hashed(rows: Sequence[Labeled]) -> list[Any]:
    """Per solution a sparse [steps, 2^18] matrix of hashed words and pairs of words."""
    from sklearn.feature_extraction.text import HashingVectorizer

    vectorizer = HashingVectorizer(
        n_features=2**18, ngram_range=(1, 2), token_pattern=r"\w+|[^\w\s]", alternate_sign=False
    )
    ends = np.cumsum([0, *(len(row.labels) for row in rows)])
    table = vectorizer.transform([step for row in rows for step in row.solution.steps])
    return [table[begin:end] for begin, end in pairwise(ends)]


def _lexical(
    hashed: Sequence[Any],
    inputs: Sequence[Any] | None,
    parts: Sequence[NDArray[np.int64]],
    labels: Sequence[Floats],
    *,
    surface: slice,
) -> tuple[list[Floats], str]:
    from scipy.sparse import csr_matrix, hstack, vstack
    from sklearn.linear_model import LogisticRegression

    tables = [vstack([hashed[at] for at in part]).tocsr() for part in parts]
    if inputs is not None:
        dense = [np.concatenate([inputs[at][:, surface] for at in part]) for part in parts]
        mean, std = dense[0].mean(axis=0), dense[0].std(axis=0) + 1e-6
        tables = [hstack([t, csr_matrix((d - mean) / std)]).tocsr() for t, d in zip(tables, dense, strict=True)]
    known = ~np.isnan(labels[0])
    best: tuple[float, list[Floats], str] | None = None
    for c in C_GRID:
        model = LogisticRegression(C=c, solver="liblinear").fit(tables[0][known], labels[0][known] >= 0.5)
        result = [np.asarray(model.decision_function(table)) for table in tables[1:]]
        judged = ~np.isnan(labels[1])
        loss = log_loss(sigmoid(result[0][judged]), labels[1][judged])
        if best is None or loss < best[0]:
            best = loss, result, f"C {c:g}"
    assert best is not None
    return best[1], best[2]


def _threshold(logits: Sequence[Floats], labels: Sequence[Floats]) -> float:
    """The probability with the best first-error F1 on these solutions, among 99 quantiles of their steps."""
    steps = [sigmoid(of) for of in logits]
    target = [first_error(of.tolist()) for of in labels]
    grid = np.unique(np.quantile(np.concatenate(steps), np.linspace(0.01, 0.99, 99)))
    scores = [
        first_error_scores([first_error(of.tolist(), threshold=at) for of in steps], target).f1 for at in grid.tolist()
    ]
    return float(grid[int(np.nanargmax(scores))]) if not np.all(np.isnan(scores)) else 0.5
