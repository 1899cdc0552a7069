"""`rmkit probe implicit`: explicit and implicit reward models trained on one plan, and how both fare under shift.

For every seed both kinds are trained from one model on one version with the same data order, steps and objective
(Bradley-Terry; on implicit rewards that is DPO), over a grid of learning rates, and of beta for the implicit kind; of
each kind the one that is best on the validation split goes on. Then `rmkit probe shift` of the two in every cell.

    difference   explicit minus implicit in percent points; mean and 95% t interval over seeds
    mean, max    over the shifted cells: the mean of a seed's differences, and the cell whose mean difference is largest

Lin et al. 2024 (arXiv:2409.03650). Trained models stay in the folder; the same command goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from evaluation.probes.shift import OUT_OF_DISTRIBUTION
from evaluation.probes.shift_command import parse_cells, shift
from rmkit import paths
from rmkit.atomic import write_text
from rmkit.cli import arguments, display
from rmkit.config import assignments, read_object, read_toml
from rmkit.errors import ModelError, UsageError
from rmkit.models.artifact.folder import CARD
from rmkit.revision import versions_text
from rmkit.training.front import train
from rmkit.training.run import last_checkpoint, run_folder

KINDS = ("explicit", "implicit")
ABOUT = """\
An implicit model (DPO) is a policy whose log-ratio to its reference is the reward; an explicit one reads a scalar from
the last token. Both kinds had the same start, data, order and steps; rate (and beta) were chosen on the validation
split. Lin et al. 2024 (arXiv:2409.03650) found implicit ones 3% worse in the mean over shifted cells, 7% at most.
"""


@dataclass(frozen=True, slots=True)
class Between:
    """Mean over seeds with a 95% t interval; None of it for one seed."""

    mean: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        return f"{self.mean:+.1f}" + ("" if self.low is None else f" [{self.low:+.1f}, {self.high:+.1f}]")


@dataclass(frozen=True, slots=True)
class StudyCell:
    """Accuracies in percent, means over seeds, and the difference in points."""

    name: str
    explicit: float
    implicit: float
    difference: Between


@dataclass(frozen=True, slots=True)
class Study:
    """`chosen` [seeds] are the settings of both kinds; `largest` names the shifted cell of the largest difference."""

    data: str
    seeds: int
    cells: tuple[StudyCell, ...]
    mean: Between
    largest: str
    maximum: Between
    chosen: tuple[Mapping[str, Mapping[str, float]], ...]
    command: str


def main(argv: list[str]) -> int:
    parser = arguments.parser(
        "probe implicit",
        "Train explicit and implicit reward models on one plan; compare them in and out of distribution.",
        examples=[
            "probe implicit hh@v2 --model Qwen/Qwen3-0.6B --cell id=hh@v2:test --cell prompt=webgpt@v1 --page study.md",
            "probe implicit hh@v2 --model models/sft --cell id=hh@v2:test --cell both=shp@v1 --rates 1e-5 --seeds 5",
        ],
    )
    parser.add_data("data")
    parser.add_argument("--model", required=True, help="Hugging Face id or folder of a causal model: where both begin")
    parser.add_argument("--cell", action="append", required=True, metavar="NAME=DATA", help="as of `rmkit probe shift`")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds")
    parser.add_argument("--rates", type=arguments.numbers, default="1e-5,5e-5", help="learning rates, with commas")
    parser.add_argument("--betas", type=arguments.numbers, default="0.1,0.5", help="beta of the implicit kind")
    parser.add_argument("--config", type=Path, metavar="TOML", help="settings that both kinds of `rmkit train` share")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="one of these (repeatable)")
    parser.add_page()
    parser.add_output("folder of the models", type=arguments.local_path)
    options = parser.parse_args(argv)
    values = (read_toml(options.config) if options.config else {}) | assignments(options.set)
    result = study(
        options.data,
        parse_cells(options.cell),
        folder=options.output or paths.home() / "runs" / f"implicit-{options.data.replace('@', '-')}",
        seeds=options.seeds,
        rates=options.rates,
        betas=options.betas,
        settings=values | {"model": options.model},
        command=arguments.command_line("probe implicit", argv),
    )
    if options.page:
        write_text(options.page, page(result))
    display.emit(asdict(result), as_json=options.json, text=page(result))
    return 0


def study(
    data: str,
    cells: Mapping[str, str],
    *,
    folder: Path,
    seeds: int,
    rates: Sequence[float],
    betas: Sequence[float],
    settings: Mapping[str, Any],
    command: str = "",
) -> Study:
    """Train, choose, compare. Raises UsageError for no seed, and whatever training and loading raise."""
    if seeds < 1 or not rates or not betas:
        raise UsageError(f"seeds, rates and betas must be given; got {seeds}, {list(rates)}, {list(betas)}")
    grid: dict[str, list[dict[str, float]]] = {
        "explicit": [{"learning_rate": rate} for rate in rates],
        "implicit": [{"learning_rate": rate, "beta": beta} for rate in rates for beta in betas],
    }
    runs, chosen = [], []
    with display.progress("models", seeds * sum(map(len, grid.values()))) as advance:
        for seed in range(seeds):
            best: dict[str, tuple[float, Path, dict[str, float]]] = {}
            for kind in KINDS:
                for own in grid[kind]:
                    accuracy, path = _trained(kind, data, folder, {**settings, **own}, seed)
                    if kind not in best or accuracy > best[kind][0]:
                        best[kind] = accuracy, path, own
                    advance(1)
            runs.append(shift((str(best["explicit"][1]), str(best["implicit"][1])), cells))
            chosen.append({kind: best[kind][2] for kind in KINDS})
    return _summary(data, runs, chosen, command)


def _trained(kind: str, data: str, folder: Path, settings: Mapping[str, Any], seed: int) -> tuple[float, Path]:
    """Validation accuracy and folder of a model, trained where it is not there."""
    name = "-".join([kind, str(seed), *(f"{settings[key]:g}" for key in ("learning_rate", "beta") if key in settings)])
    target = folder / name
    if not target.exists():
        begun = last_checkpoint(run_folder(target)) is not None
        train(kind, data, output=target, seed=seed, resume=begun, **settings)
    card = read_object(target / CARD, raises=ModelError, hint="delete the folder, it is trained again")
    return float(card["validation"]["accuracy"]["value"]), target


def _summary(
    data: str, runs: Sequence[Mapping[str, Any]], chosen: Sequence[Mapping[str, Mapping[str, float]]], command: str
) -> Study:
    names = list(runs[0]["cells"])
    points = {name: [float(run["cells"][name]["difference"]["points"]) for run in runs] for name in names}
    shifted = [name for name in names if name in OUT_OF_DISTRIBUTION]
    largest = max(shifted, key=lambda name: fmean(points[name]))
    return Study(
        data=data,
        seeds=len(runs),
        cells=tuple(
            StudyCell(
                name,
                fmean(float(run["cells"][name]["first"]["percent"]) for run in runs),
                fmean(float(run["cells"][name]["second"]["percent"]) for run in runs),
                between(points[name]),
            )
            for name in names
        ),
        mean=between([fmean(points[name][at] for name in shifted) for at in range(len(runs))]),
        largest=largest,
        maximum=between(points[largest]),
        chosen=tuple(chosen),
        command=command,
    )


def between(values: Sequence[float]) -> Between:
    """The mean of one number a seed, and its 95% t interval."""
    from scipy.stats import t

    if len(values) < 2:
        return Between(fmean(values), None, None)
    half = float(t.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5
    return Between(fmean(values), fmean(values) - half, fmean(values) + half)


def page(result: Study) -> str:
    """Markdown: the cells, the shifted ones together, what was chosen."""
    rows = [(one.name, f"{one.explicit:.1f}", f"{one.implicit:.1f}", str(one.difference)) for one in result.cells]
    picked = [
        f"seed {seed}: " + "; ".join(f"{kind} {_settings_text(own)}" for kind, own in one.items())
        for seed, one in enumerate(result.chosen)
    ]
    return "\n".join(
        [
            f"# Explicit against implicit reward models on {result.data}",
            "",
            f"    {result.command}",
            "",
            ABOUT,
            display.markdown(("cell", "explicit %", "implicit %", "explicit - implicit, points"), rows),
            "",
            f"{result.seeds} seeds. Shifted cells: mean {result.mean} points, "
            f"largest {result.maximum} ({result.largest}; a maximum of noisy numbers is biased upwards).",
            "",
            *picked,
            "",
            versions_text("torch", "transformers"),
            "",
        ]
    )


def _settings_text(own: Mapping[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in own.items())
