"""Several seeds and learning rates of one explicit training: what is chance, and which rate is better.

Every run is an artifact of its own beside the target, named TARGET-lrRATE-seedN. A run whose artifact is there, made
with the same settings from the same data, is not repeated; an interrupted one goes on from its last checkpoint. Over K
seeds a validation number is told as its mean with the interval

    mean -+ t(0.975, K - 1) s / sqrt(K)                s: standard deviation over seeds (K - 1 in the denominator)

which holds the spread of initialization and order on this one split, not that of the data (that is each run's own
clustered interval). Seeds 0 ... K - 1 on top of the settings' own; rates are compared by the number that also picks
checkpoints.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rmkit.atomic import write_text
from rmkit.cli import display
from rmkit.config import read_object
from rmkit.data.export_folder import dataset_of, export_folder, model_folder
from rmkit.errors import ConfigError, UsageError
from rmkit.models.artifact.folder import CARD
from rmkit.training.config import TrainingConfig
from rmkit.training.run import finished

# t(0.975, df) for df = 1 ... 30; beyond, the normal's 1.96 is used, 4% too narrow at most
T_975 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)

Train = Callable[..., dict[str, Any]]


def run(options: Any, settings: TrainingConfig, *, train: Train) -> int:
    """`rmkit train explicit` with --seeds or --learning-rates: its parsed options; `train` as for `sweep`."""
    try:
        rates = [float(rate) for rate in (options.learning_rates or "").split(",") if rate]
    except ValueError as error:
        raise UsageError(f"--learning-rates takes numbers with commas, got {options.learning_rates!r}") from error
    seeds = 1 if options.seeds is None else options.seeds
    result = sweep(
        options.data,
        settings,
        seeds=seeds,
        learning_rates=rates,
        output=options.output,
        restart=options.restart,
        train=partial(train, allow_benchmark=options.allow_benchmark),
    )
    if result["runs"]:
        display.emit(result, as_json=options.json, text=text(result))
    return 0


def sweep(
    data: str,
    settings: TrainingConfig,
    *,
    seeds: int = 1,
    learning_rates: Sequence[float] = (),
    output: Path | None = None,
    restart: bool = False,
    train: Train,
) -> dict[str, object]:
    """All runs with their validation numbers, and per learning rate mean and interval over the seeds.

    `train` is `rmkit.training.explicit.train` or something like it. Raises ConfigError where an artifact of that name
    was made with other settings or data (with `restart` it is made anew).
    """
    from rmkit.training.run import last_checkpoint, run_folder

    if seeds < 1:
        raise UsageError(f"--seeds takes 1 or more, got {seeds}")
    if any(rate <= 0 for rate in learning_rates):
        raise UsageError(f"learning rates must be positive, got {', '.join(map(str, learning_rates))}")
    folder = export_folder(data)
    target = output or model_folder(folder, settings.kind)
    dataset = json.loads(json.dumps(dataset_of(folder)))
    runs = []
    for chosen, place in _runs(settings, target, seeds=seeds, learning_rates=learning_rates):
        card = None if restart else _finished(place, chosen, dataset)
        if card is None:
            resume = not restart and last_checkpoint(run_folder(place)) is not None
            card = train(data, chosen, output=place, resume=resume, restart=restart)
        if card:  # a process that does not lead is told nothing
            details = {"path": str(place), "learning_rate": chosen.learning_rate, "seed": chosen.seed}
            runs.append({**details, "validation": numbers(card["validation"])})
    result = summary(runs, by=settings.objective.selects_by) if runs else {"runs": []}
    if runs:
        write_text(target.with_name(f"{target.name}-sweep.json"), json.dumps(result, indent=2) + "\n")
    return result


def _runs(
    settings: TrainingConfig, target: Path, *, seeds: int, learning_rates: Sequence[float]
) -> Iterator[tuple[TrainingConfig, Path]]:
    for rate in dict.fromkeys(learning_rates or (settings.learning_rate,)):
        for seed in range(settings.seed, settings.seed + seeds):
            name = f"{target.name}-lr{rate:g}-seed{seed}"
            yield replace(settings, learning_rate=rate, seed=seed), target.with_name(name)


def _finished(place: Path, settings: TrainingConfig, dataset: Mapping[str, Any]) -> dict[str, Any] | None:
    """The card of an artifact that is this very run, None where there is none. Raises ConfigError for another one."""
    if (card := finished(place, settings, dataset)) or not (place / CARD).is_file():
        return card
    document = json.loads(json.dumps(settings.as_json()))
    stored = read_object(place / CARD, raises=ConfigError, hint="use --restart").get("training", {}).get("settings")
    keys = [key for key in document if (stored or {}).get(key) != document[key]] or ["dataset"]
    raise ConfigError(
        f"{place} was made with other {', '.join(keys)}; give the sweep another -o, or --restart to make it anew"
    )


def numbers(validation: Mapping[str, Any]) -> dict[str, float]:
    """The plain numbers among the validation facts; of one with an interval its value."""
    by_key = {}
    for name, fact in validation.items():
        value = fact.get("value") if isinstance(fact, Mapping) else fact
        if isinstance(value, int | float) and not isinstance(value, bool):
            by_key[name] = float(value)
    return by_key


def summary(runs: Sequence[Mapping[str, Any]], *, by: str) -> dict[str, object]:
    """Mean, interval and seeds of every number per learning rate; `best` is the rate with the lowest mean `by`."""
    rates: dict[float, list[Mapping[str, float]]] = {}
    for run in runs:
        rates.setdefault(run["learning_rate"], []).append(run["validation"])
    table = [_row(rate, result) for rate, result in rates.items()]
    known = [row for row in table if by in row]
    best = min(known, key=lambda row: row[by]["mean"])["learning_rate"] if known else None
    return {"selected_by": by, "best_learning_rate": best, "rates": table, "runs": list(runs)}


def _row(rate: float, result: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    shared = [name for name in result[0] if all(name in one for one in result)]
    spreads = {name: spread([one[name] for one in result]) for name in shared}
    return {"learning_rate": rate, "seeds": len(result), **spreads}


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """Mean with its 95% t interval; none with a single value."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return {"mean": mean, "low": None, "high": None}
    t = T_975[len(values) - 2] if len(values) - 2 < len(T_975) else 1.96
    half = t * statistics.stdev(values) / math.sqrt(len(values))
    return {"mean": mean, "low": mean - half, "high": mean + half}


def text(result: Mapping[str, Any]) -> str:
    """One line a learning rate: the deciding number and the accuracy with intervals over seeds."""
    by = result["selected_by"]
    shown = [name for name in dict.fromkeys((by, "accuracy", "ece")) if any(name in row for row in result["rates"])]
    lines = [f"{'learning rate':<15}{'seeds':>6}" + "".join(f"{name:>28}" for name in shown)]
    for row in result["rates"]:
        cells = "".join(f"{_cell(row.get(name)):>28}" for name in shown)
        lines.append(f"{row['learning_rate']:<15g}{row['seeds']:>6}{cells}")
    return "\n".join([*lines, f"lowest mean {by}: learning rate {result['best_learning_rate']:g}"])


def _cell(result: Mapping[str, float | None] | None) -> str:
    if result is None:
        return "-"
    if result["low"] is None:
        return f"{result['mean']:.4f}"
    return f"{result['mean']:.4f} [{result['low']:.4f}, {result['high']:.4f}]"
