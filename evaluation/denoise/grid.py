"""All denoising methods on one dataset under injected noise: cells of kind x rate x seed, each method's result on disk.

    $RMKIT_HOME/runs/denoise/KEY/
        task.npz                        features, labels and the flips of every cell
        CELL/METHOD.npz                 one finished result; appears by one rename, is never computed twice

KEY covers data, encoder, head, prior and the source of the methods, so a second run with more seeds, rates or methods
computes only what is new, and a killed one goes on where it was. Cells run in as many processes as there are cores, one
thread each; a result depends on its cell alone.
"""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rmkit import paths
from rmkit.atomic import draft_file
from rmkit.cli import display
from rmkit.errors import ConfigError, unknown
from rmkit.heads.stacked_training import HeadConfig
from rmkit.ids import digest
from rmkit.reliability.feature_pairs import FeaturePairs
from rmkit.reliability.separation import auc, kept_precision
from rmkit.source_digest import source_digest

if TYPE_CHECKING:
    from evaluation.denoise.methods import Outcome

HISTOGRAM_EDGES = np.linspace(-4, 4, 49)  # in deviations of the margins of an epoch


@dataclass(frozen=True, slots=True)
class Cell:
    """One injection of noise."""

    kind: str
    rate: float
    seed: int

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.rate:g}-{self.seed}"


@dataclass(frozen=True, slots=True)
class BenchData:
    """Pairs with labels taken as right, and how to turn some around; `test_family` [test] clusters the intervals.

    `flips(kind, rate, seed)` gives the mask [train] of labels to turn around; it may raise DataError.
    """

    name: str
    digest: str
    train: FeaturePairs
    test: FeaturePairs
    test_family: NDArray[np.int64]
    flips: Callable[[str, float, int], NDArray[np.bool_]]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Result:
    """What one method did in one cell. `credit` [test] is 1 where the right response got the higher reward, 1/2 for a
    tie; `histogram` counts margins of [epoch][right, wrong label][bin], empty where the method tells no epochs; `kept`
    and `right` [train] say which labels a filter kept and which are right, `kept` empty where it is no filter."""

    cell: Cell
    method: str
    credit: NDArray[np.float32]
    facts: Mapping[str, float | None]
    histogram: NDArray[np.int64]
    kept: NDArray[np.bool_]
    right: NDArray[np.bool_]


def run_grid(
    data: BenchData,
    cells: Sequence[Cell],
    methods: Sequence[str],
    *,
    head: HeadConfig | None = None,
    prior: float | None = None,
    workers: int | None = None,
) -> list[Result]:
    """Every method in every cell, from disk where it is there. `prior` None: methods are told the injected rate."""
    head = head or HeadConfig()
    folder = _folder(data, head, prior)
    jobs = [(cell, method) for cell in cells for method in methods]
    missing = [(cell, method) for cell, method in jobs if not _path(folder, cell, method).exists()]
    if missing:
        _store_task(folder, data, {cell for cell, _ in missing})
        todo = dict.fromkeys(cell for cell, _ in missing)
        by_cell = [(cell, [name for other, name in missing if other == cell]) for cell in todo]
        _compute(folder, by_cell, head=head, prior=prior, workers=workers or os.cpu_count() or 1)
    return [_load(folder, cell, method) for cell, method in jobs]


def _compute(
    folder: Path,
    by_cell: Sequence[tuple[Cell, Sequence[str]]],
    *,
    head: HeadConfig,
    prior: float | None,
    workers: int,
) -> None:
    with display.progress("cells", len(by_cell)) as advance:
        if min(workers, len(by_cell)) == 1:
            for cell, methods in by_cell:
                compute(folder, cell, methods, head, prior)
                advance(1)
            return
        spawned = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
        with ProcessPoolExecutor(min(workers, len(by_cell)), mp_context=spawned) as pool:
            try:
                for done in as_completed([pool.submit(compute, folder, *job, head, prior) for job in by_cell]):
                    done.result()
                    advance(1)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def compute(folder: Path, cell: Cell, methods: Sequence[str], head: HeadConfig, prior: float | None) -> None:
    """The methods in one cell, each stored as it ends; in a process of its own or in this one."""
    from evaluation.denoise.methods import METHODS, Task
    from rmkit.features.encoder import single_threaded

    clean, test, flips = _read_task(folder, cell.name)
    task = Task(
        train=clean.flipped(flips),
        clean=clean,
        test=test,
        prior=cell.rate if prior is None else prior,
        head=head,
        seed=cell.seed,
    )
    for method in methods:
        # warnings about single epochs belong to single runs
        with single_threaded(), display.only_errors_of("rmkit.reliability"):
            outcome = METHODS[method](task)
        _store(_path(folder, cell, method), outcome, flips, task.prior)


def _store(path: Path, outcome: Outcome, flips: NDArray[np.bool_], prior: float) -> None:
    right = ~flips
    facts: dict[str, Any] = {"prior": prior, "method_facts": _small(outcome.facts)}
    facts |= {"disparity": outcome.facts.get("disparity")}
    if outcome.weight is not None:
        selected = outcome.weight > 0
        facts |= {
            "kept": float(selected.mean()),
            "kept_precision": kept_precision(selected, right),
            "found": float((~selected)[flips].mean()) if flips.any() else None,
        }
    if outcome.margin is not None and flips.any():
        facts["auc"] = auc(outcome.margin, right)
    if outcome.margin_by_epoch is not None and flips.any():
        facts["auc_first_epoch"] = auc(outcome.margin_by_epoch[0], right)
    path.parent.mkdir(parents=True, exist_ok=True)
    with draft_file(path) as draft, draft.open("wb") as file:
        np.savez_compressed(
            file,
            credit=(outcome.test_margin > 0) + 0.5 * (outcome.test_margin == 0),
            facts=np.array(json.dumps(facts)),
            histogram=_histogram(outcome.margin_by_epoch, right),
            kept=np.zeros(0, dtype=bool) if outcome.weight is None else outcome.weight > 0,
            right=right,
        )


def _histogram(margin_En: NDArray[np.float32] | None, right: NDArray[np.bool_]) -> NDArray[np.int64]:
    """[E, 2, bins] of margins over their deviation; what lies outside the edges counts in the outermost bins."""
    if margin_En is None:
        return np.zeros((0, 2, len(HISTOGRAM_EDGES) - 1), dtype=np.int64)
    deviation = np.maximum(np.nanstd(margin_En, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    inside = np.clip(margin_En / deviation, HISTOGRAM_EDGES[0], HISTOGRAM_EDGES[-1])
    return np.array([[np.histogram(one[mask], HISTOGRAM_EDGES)[0] for mask in (right, ~right)] for one in inside])


def _small(facts: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in facts.items() if isinstance(value, int | float | str | bool)}


def _load(folder: Path, cell: Cell, method: str) -> Result:
    with np.load(_path(folder, cell, method), allow_pickle=False) as stored:
        facts = json.loads(str(stored["facts"]))
        credit = stored["credit"].astype(np.float32)
        return Result(cell, method, credit, facts, stored["histogram"], stored["kept"], stored["right"])


def _path(folder: Path, cell: Cell, method: str) -> Path:
    return folder / cell.name / f"{method}.npz"


def _folder(data: BenchData, head: HeadConfig, prior: float | None) -> Path:
    answers = json.dumps([data.name, data.digest, asdict(head), prior], sort_keys=True)
    return paths.home() / "runs" / "denoise" / digest([answers, source_digest("rmkit", "evaluation")])[:16]


def _store_task(folder: Path, data: BenchData, cells: Iterable[Cell]) -> None:
    """The arrays that workers read, the flips of all cells so far among them."""
    folder.mkdir(parents=True, exist_ok=True)
    for cell in cells:
        path = folder / cell.name / "flips.npy"
        path.parent.mkdir(exist_ok=True)
        if not path.exists():
            with draft_file(path) as draft, draft.open("wb") as file:
                np.save(file, data.flips(cell.kind, cell.rate, cell.seed))
    arrays = {
        f"{side}_{name}": value for side in ("train", "test") for name, value in _arrays(getattr(data, side)).items()
    }
    with draft_file(folder / "task.npz") as draft, draft.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def _arrays(pairs: FeaturePairs) -> dict[str, NDArray[Any]]:
    used, rows = np.unique(pairs.rows, return_inverse=True)
    arrays: dict[str, NDArray[Any]] = {
        "ids": np.array(pairs.ids),
        "vectors": pairs.vectors[used],
        "rows": rows.reshape(pairs.rows.shape),
    }
    optional = {"soft_label": pairs.soft_label, "weight": pairs.weight}
    return arrays | {name: value for name, value in optional.items() if value is not None}


@functools.lru_cache(maxsize=1)
def _read_pairs(path: Path, stamp: int) -> tuple[FeaturePairs, FeaturePairs]:
    with np.load(path, allow_pickle=False) as stored:
        results = []
        for side in ("train", "test"):
            columns = {name: stored.get(f"{side}_{name}") for name in ("vectors", "rows", "soft_label", "weight")}
            results.append(FeaturePairs(tuple(stored[f"{side}_ids"].tolist()), **columns))
    return results[0], results[1]


def _read_task(folder: Path, cell: str) -> tuple[FeaturePairs, FeaturePairs, NDArray[np.bool_]]:
    path = folder / "task.npz"
    train, test = _read_pairs(path, path.stat().st_mtime_ns)
    return train, test, np.load(folder / cell / "flips.npy", allow_pickle=False)


def parse_cells(kinds: Sequence[str], rates: Sequence[float], seeds: int) -> list[Cell]:
    """All cells; without noise the kinds do not differ, so rate 0 is there once. Raises ConfigError."""
    if seeds < 1 or not kinds or not rates or not all(0 <= rate < 0.5 for rate in rates):
        raise ConfigError(f"seeds must be positive, rates in [0, 0.5), kinds given; got {seeds}, {rates}, {kinds}")
    selected = [(kind, rate) for rate in sorted(set(rates)) for kind in kinds if rate or kind == kinds[0]]
    return [Cell(kind, rate, seed) for kind, rate in selected for seed in range(seeds)]


def check_methods(names: Sequence[str]) -> list[str]:
    """The names, `standard` first, since everything is compared with it. Raises ConfigError for an unknown one."""
    from evaluation.denoise.methods import METHODS

    if extra := [name for name in names if name not in METHODS]:
        raise ConfigError(unknown("method", extra[0], METHODS))
    return ["standard", *(name for name in names if name != "standard")]
