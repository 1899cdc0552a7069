"""`rmkit bench denoising`: do the denoising methods do what they claim, and how fast are they.

Quality: real texts whose labels are right by construction or taken as right, an exact share of training labels turned
around, a clean test part of other prompts (`evaluation/denoise/tasks.py`); every method is told the true rate. Each
cell is repeated with several seeds (flips, initial weights, orders); numbers are means over them with the standard
error over seeds, differences are paired by seed.

Beside it, how clean the selections of UPO are on pairs that a model labeled (`denoising_selection`).

    acceptance   on relevance at 40% flips peer review beats standard training by 15 points or more, and 80% of what
                 its models learned from in the last epoch is right; status 1 where this fails

Speed: whole trainings on made-up features, peer review beside one standard head, taking turns; and T dropout passes on
an uncached trunk beside one pass. Medians of the ratios within a repeat.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluation.benchmarks.denoising import page as denoising_page
from evaluation.benchmarks.denoising import speed as denoising_speed
from evaluation.benchmarks.denoising.selection import selection
from evaluation.denoise import tasks as noise_tasks
from evaluation.denoise.grid import BenchData, Cell, Result, run_grid
from rmkit.cli import arguments, display
from rmkit.errors import UsageError, unknown

if TYPE_CHECKING:
    from numpy.typing import NDArray

METHODS = (
    "clean",
    "standard",
    "ensemble",
    "label_smoothing",
    "robust",
    "cross_fit",
    "self",
    "mean",
    "peer",
    "peer_batch",
)
NOISES: dict[str, tuple[tuple[str, float], ...]] = {
    "relevance": (("symmetric", 0.2), ("symmetric", 0.3), ("symmetric", 0.4), ("length", 0.3), ("length", 0.4)),
    "preferences": (("symmetric", 0.2), ("symmetric", 0.4)),
    "planted": (("symmetric", 0.2), ("symmetric", 0.4)),
    "rmbench-safety": (("symmetric", 0.2), ("symmetric", 0.4)),
}
LEAST_GAIN, LEAST_PRECISION = 15.0, 0.80


def main(argv: list[str]) -> int:
    options = _parser().parse_args(argv)
    if not (options.pairs or options.speed):
        raise UsageError("nothing to measure: give --pairs FILE (and --rmbench FILE) for quality, --speed for speed")
    result: dict[str, Any] = {**denoising_page.setting(), "seeds": options.seeds}
    if options.pairs:
        tasks = _tasks(options)
        result["quality"] = quality(tasks, seeds=options.seeds, workers=options.workers)
        result["selection"] = selection(tasks, seeds=options.seeds, spread=spread)
        result["acceptance"] = acceptance(result["quality"])
    if options.speed:
        result["speed"] = denoising_speed.measure(
            pairs=options.speed_pairs, repeats=options.repeats, texts=options.pairs, encoder=options.encoder
        )
    if options.page:
        denoising_page.write(options.page, result, argv=argv)
    display.emit(result, as_json=options.json, text=denoising_page.text(result))
    return int(bool(result.get("acceptance")) and not result["acceptance"]["passed"])


def _parser() -> argparse.ArgumentParser:
    parser = arguments.parser(
        "bench denoising",
        "Denoising methods on real texts with known label noise, and the speed of peer review and dropout passes.",
        examples=[
            "bench denoising --pairs pairs_hh_harmless.jsonl.gz --rmbench bench_rmbench.jsonl.gz",
            "bench denoising --speed --repeats 5",
            "bench denoising --pairs pairs_hh_harmless.jsonl.gz --speed --page denoising.md",
        ],
    )
    parser.add_argument("--pairs", type=Path, metavar="FILE", help="pairs with prompt, chosen, rejected (JSONL)")
    parser.add_argument("--rmbench", type=Path, metavar="FILE", help="RM-Bench rows, for its safety domain")
    parser.add_argument("--tasks", default="", help=f"only these, comma-separated (default: {','.join(NOISES)})")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_encoder()
    parser.add_workers()
    parser.add_argument("--speed", action="store_true", help="measure speed, too")
    parser.add_argument("--speed-pairs", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3, help="repeats of the speed measurement")
    parser.add_page()
    return parser


def _tasks(options: argparse.Namespace) -> list[BenchData]:
    """The tasks that were asked for and whose file was given. Raises UsageError for an unknown one."""
    target = [name for name in options.tasks.split(",") if name] or list(NOISES)
    if extra := set(target) - set(NOISES):
        raise UsageError(unknown("task", min(extra), NOISES))
    encoder = noise_tasks.encoder_of(options.encoder)
    makers = {
        "relevance": noise_tasks.relevance,
        "preferences": noise_tasks.preferences,
        "planted": noise_tasks.planted,
    }
    result = [makers[name](options.pairs, encoder=encoder) for name in target if name in makers]
    if "rmbench-safety" in target and options.rmbench:
        result.append(noise_tasks.rmbench(options.rmbench, encoder=encoder))
    return result


def quality(tasks: Sequence[BenchData], *, seeds: int, workers: int | None = None) -> dict[str, object]:
    """Per task its facts and per noise and method accuracy, kept precision and AUC, as mean and standard error."""
    by_key: dict[str, Any] = {}
    for data in tasks:
        cells = [Cell(kind, rate, seed) for kind, rate in NOISES[data.name] for seed in range(seeds)]
        results = run_grid(data, cells, METHODS, workers=workers)
        by_key[data.name] = {"facts": dict(data.facts), "noises": _by_noise(results)}
    return by_key


def _by_noise(results: Sequence[Result]) -> dict[str, dict[str, object]]:
    grouped: dict[str, dict[str, list[Result]]] = {}
    for result in results:
        noise = f"{result.cell.kind} {result.cell.rate:.0%}"
        grouped.setdefault(noise, {}).setdefault(result.method, []).append(result)
    return {noise: _methods(methods) for noise, methods in grouped.items()}


def _methods(methods: Mapping[str, Sequence[Result]]) -> dict[str, object]:
    accuracy = {name: np.array([100 * one.credit.mean() for one in values]) for name, values in methods.items()}
    return {
        name: {
            "accuracy": spread(accuracy[name]),
            "minus_standard": spread(accuracy[name] - accuracy["standard"]),
            "minus_self": spread(accuracy[name] - accuracy["self"]),
            **{fact: spread(_known(values, fact)) for fact in ("kept_precision", "found", "auc", "auc_first_epoch")},
        }
        for name, values in methods.items()
    }


def _known(results: Sequence[Result], fact: str) -> NDArray[np.float64]:
    return np.array([value for one in results if (value := one.facts.get(fact)) is not None])


def spread(values: Any) -> dict[str, float] | None:
    """Mean and standard error over seeds; None where nothing is known, no error of a single seed."""
    if not len(values):
        return None
    error = {"se": float(values.std(ddof=1) / len(values) ** 0.5)} if len(values) > 1 else {}
    return {"mean": float(values.mean()), **error}


def acceptance(quality: Mapping[str, Any]) -> dict[str, object] | None:
    """Gain and kept precision of peer review on relevance at 40% flips; None where that was not measured."""
    peer = quality.get("relevance", {}).get("noises", {}).get("symmetric 40%", {}).get("peer")
    if peer is None:
        return None
    gain, precision = peer["minus_standard"]["mean"], peer["kept_precision"]["mean"]
    return {"gain": gain, "kept_precision": precision, "passed": gain >= LEAST_GAIN and precision >= LEAST_PRECISION}
