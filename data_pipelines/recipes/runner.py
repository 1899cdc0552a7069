"""Running steps so that memory holds a part of the frame at a time and a kill loses at most the part under way.

Each finished step leaves a folder $RMKIT_HOME/runs/KEY with what it dropped, its facts and the parts that it kept. KEY
is a digest of the input (version, rows and votes), of benchmarks and gold labels, of the step's and all earlier steps'
configs and reward models, and of all source code that a step can run (rmkit's, that of a step from elsewhere, the
libraries' versions), so a changed recipe, version, model or rmkit never picks up an old result. A folder appears by one
rename and is complete or absent. Only the newest kept parts are stored; the folders go once the version is committed,
or, where a kill came between, when the next recipe starts: each says of which run it is.

How much a step sees at once is its scope (see `data_pipelines.scopes`). Of a step that goes row by row, KEY.parts holds
the parts that are done, each of them whole, until the step is.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl

from data_pipelines.recipes.parts import Parts, write_part, write_parts
from data_pipelines.scopes import Columns, Rows, Streamed, added, joined
from data_pipelines.steps import DROPPED as DROPPED_SCHEMA
from data_pipelines.steps import Context, StepResult, finished, run_step, step_module
from rmkit import paths
from rmkit.atomic import draft_folder, put
from rmkit.cli import display
from rmkit.errors import RmkitError
from rmkit.ids import digest
from rmkit.source_digest import source_digest

PACKAGES = ("rmkit", "rubrics", "warehouse", "data_pipelines")  # what a step of ours may import
KEPT, DROPPED, REPORT = "kept", "dropped.arrow", "report.json"
CONFIG = "run_config"  # key of the report: of which run the step is
RECORDS = "records-"  # + table.arrow
PARTS = ".parts"  # a folder's name is the key of its step and this

# Runs a step on the parts with these numbers, in any order and place; each leaves its folder.
Engine = Callable[["PartWork", Sequence[int]], None]


@dataclass(frozen=True, kw_only=True)
class StepRun:
    """One finished step; `dropped` has id, reason, evidence. `reused`: from an earlier run that was cut off.

    `records` are the step's further rows by warehouse table.
    """

    key: str
    name: str
    config: dict[str, Any]
    n_in: int
    n_kept: int
    wall_s: float
    facts: dict[str, Any]
    dropped: pl.DataFrame
    records: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    reused: bool = False


@dataclass(frozen=True, kw_only=True)
class PartWork:
    """A step of scope Rows on single parts of its input, each into a folder of `folder`. Good for another process."""

    name: str
    config: Any
    context: Context
    inputs: tuple[Path, ...]
    folder: Path

    def __call__(self, number: int) -> None:
        """One part; nothing where it is done already."""
        if self.is_done(number):
            return
        result = run_step(self.name, pl.read_ipc(self.inputs[number]), self.config, context=self.context, finish=False)
        with draft_folder(self.part(number)) as draft:
            (draft / KEPT).mkdir()
            write_part(draft / KEPT, number, result.kept)
            _write_result(draft, result)
            (draft / REPORT).write_text(json.dumps(_jsonable(result.facts)))
            put(draft, self.part(number), replace=True)

    def part(self, number: int) -> Path:
        return self.folder / f"{number:05d}"

    def is_done(self, number: int) -> bool:
        return any((self.part(number) / KEPT).glob("*")) and (self.part(number) / REPORT).exists()


def one_by_one(work: PartWork, numbers: Sequence[int]) -> None:
    """The engine of one process."""
    for number in numbers:
        work(number)


def run_steps(
    inputs: Parts,
    steps: Sequence[tuple[str, Any]],
    *,
    context: Context,
    input_digest: str,
    run: str,
    engine: Engine = one_by_one,
) -> tuple[Parts, list[StepRun]]:
    """The rows after all steps, and what each did.

    `input_digest` is the digest of the version that the rows come from; `run` is the recipe's config as the warehouse
    records it.
    """
    keys = _keys(inputs, steps, context, input_digest)
    cleaned, done = _finished(inputs, keys)
    with display.progress("steps", total=len(steps)) as advance:
        advance(len(done))
        for (name, config), key in list(zip(steps, keys, strict=True))[len(done) :]:
            start = time.monotonic()
            with draft_folder(_folder(key)) as draft:
                (draft / KEPT).mkdir()
                result = _run(name, config, cleaned, context, draft / KEPT, key, run, engine)
                kept = Parts(draft / KEPT)
                step = StepRun(
                    key=key,
                    name=name,
                    config=_jsonable(asdict(config)),
                    n_in=cleaned.n_rows,
                    n_kept=kept.n_rows,
                    wall_s=round(time.monotonic() - start, 3),
                    facts=_jsonable(result.facts),
                    dropped=result.dropped,
                    records=result.records,
                )
                _write_result(draft, result)
                report = {n: value for n, value in vars(step).items() if n not in ("dropped", "records", "reused")}
                (draft / REPORT).write_text(json.dumps(report | {CONFIG: run}))
                put(draft, _folder(key), replace=True)
            if done:  # the parts of the step before are not needed any more
                shutil.rmtree(_folder(done[-1].key) / KEPT, ignore_errors=True)
            shutil.rmtree(_folder(key + PARTS), ignore_errors=True)
            cleaned = Parts(_folder(key) / KEPT)
            done.append(step)
            advance(1)
    return cleaned, done


def _run(
    name: str, config: Any, inputs: Parts, context: Context, kept: Path, key: str, run: str, engine: Engine
) -> StepResult:
    """The step's result; what it keeps is in the folder `kept`, not in the result."""
    match scope := getattr(step_module(name), "SCOPE", None):
        case Rows() if len(inputs) > 1:
            return _row_by_row(name, config, inputs, context, kept, _folder(key + PARTS), run, engine)
        case Columns() if len(inputs) > 1:
            result = run_step(name, inputs.select(scope.of()), config, context=context)
            narrow = result.kept.drop(scope.lengths)
            write_parts(kept, (joined(part, narrow) for part in inputs))
        case Streamed():
            result = run_step(name, inputs, config, context=context)
            write_parts(kept, (joined(part, result.kept) for part in inputs))
        case _:
            result = run_step(name, pl.concat(inputs), config, context=context)
            write_parts(kept, [result.kept])
    return result


def _row_by_row(
    name: str, config: Any, inputs: Parts, context: Context, kept: Path, folder: Path, run: str, engine: Engine
) -> StepResult:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / REPORT).write_text(json.dumps({CONFIG: run}))  # so that it goes with the run
    work = PartWork(name=name, config=config, context=context, inputs=tuple(inputs.paths), folder=folder)
    numbers = range(len(inputs))
    engine(work, [number for number in numbers if not work.is_done(number)])
    facts, dropped, n_kept = [], [], 0
    records: dict[str, list[pl.DataFrame]] = {}
    for number in numbers:
        part = work.part(number)
        facts.append(json.loads((part / REPORT).read_text()))
        dropped.append(_read(part / DROPPED))
        for table, rows in _records(part).items():
            records.setdefault(table, []).append(rows)
        for path in (part / KEPT).iterdir():
            if pl.scan_ipc(path).select(pl.len()).collect().item() or (number == numbers[-1] and not n_kept):
                os.rename(path, kept / path.name)
                n_kept += 1
    result = StepResult(
        pl.DataFrame(),
        pl.concat(dropped),
        added(facts, step_module(name).SCOPE.same),
        {table: pl.concat(rows) for table, rows in records.items()},
    )
    return finished(result, step_module(name).SCOPE)


def _write_result(folder: Path, result: StepResult) -> None:
    """What was dropped, and the further rows."""
    result.dropped.cast(pl.Schema(DROPPED_SCHEMA)).write_ipc(folder / DROPPED, compression="lz4")
    for table, rows in result.records.items():
        rows.write_ipc(folder / f"{RECORDS}{table}.arrow", compression="lz4")


def forget(configs: Collection[str], done: Iterable[StepRun] = ()) -> None:
    """Remove the folders of all steps of these runs, and of these steps, whichever run they were made for."""
    for step in done:
        for name in (step.key, step.key + PARTS):
            shutil.rmtree(_folder(name), ignore_errors=True)
    for report in (paths.home() / "runs").glob(f"*/{REPORT}"):
        with contextlib.suppress(OSError, ValueError, RecursionError, AttributeError):
            if json.loads(report.read_text()).get(CONFIG) in configs:
                shutil.rmtree(report.parent, ignore_errors=True)


def _finished(inputs: Parts, keys: Sequence[str]) -> tuple[Parts, list[StepRun]]:
    """What an earlier run left: the parts after the last finished step, and the steps until there."""
    last = max((at for at, key in enumerate(keys) if (_folder(key) / KEPT).exists()), default=-1)
    try:
        done = [_load(key) for key in keys[: last + 1]]
        return (Parts(_folder(keys[last]) / KEPT) if done else inputs), done
    except (OSError, ValueError, TypeError, KeyError, RecursionError, pl.exceptions.PolarsError):
        # Damaged, by a power cut say: nothing of it is needed.
        for key in keys:
            shutil.rmtree(_folder(key), ignore_errors=True)
        return inputs, []


def _load(key: str) -> StepRun:
    report = json.loads((_folder(key) / REPORT).read_text())
    del report[CONFIG]
    return StepRun(**report, dropped=_read(_folder(key) / DROPPED), records=_records(_folder(key)), reused=True)


def _records(folder: Path) -> dict[str, pl.DataFrame]:
    return {path.stem.removeprefix(RECORDS): _read(path) for path in sorted(folder.glob(f"{RECORDS}*.arrow"))}


def _read(path: Path) -> pl.DataFrame:
    return pl.read_ipc(path)


def _folder(key: str) -> Path:
    return paths.home() / "runs" / key


def _keys(parts: Iterable[pl.DataFrame], steps: Sequence[tuple[str, Any]], context: Context, inputs: str) -> list[str]:
    """One key per step, each depending on all before it."""
    frames = (parts, *([one] for one in (context.benchmarks, *context.gold.values())))
    key = digest([inputs, *map(_content, frames)])
    keys = []
    for name, config in steps:
        options = json.dumps(asdict(config), sort_keys=True)
        key = digest([key, name, options, _model(config), source_digest(*PACKAGES, *_home_of(name))])
        keys.append(key[:32])
    return keys


def _home_of(name: str) -> list[str]:
    """The top-level package of a step's module where that is none of ours."""
    step = step_module(name)
    package = (step.__name__ if isinstance(step, ModuleType) else step.__module__).partition(".")[0]
    return [] if package in PACKAGES else [package]


def _model(config: Any) -> str:
    """Digest of what the name of a step's reward model stands for now; "" where it names none that has files."""
    from rmkit.models import find_model
    from rmkit.models.artifact.folder import CARD
    from rmkit.models.artifact.model_card import CALIBRATION

    if not (name := getattr(config, "model", "")):
        return ""
    try:
        path = find_model(name)
    except RmkitError:  # built in, behind a URL, or unknown, which the step itself says best
        return ""
    files = [path] if path.is_file() else [path / CARD, path / CALIBRATION]
    return digest([file.read_text() if file.is_file() else "" for file in files])


def _content(parts: Iterable[pl.DataFrame]) -> str:
    """Digest of all cells in order. Good for one polars version, which the key covers."""
    content = hashlib.sha256()
    for frame in parts:
        content.update(frame.hash_rows().to_numpy().tobytes())
    return content.hexdigest()


def _jsonable(values: dict[str, Any]) -> dict[str, object]:
    """The same values as they come back from a stored report: lists for tuples, plain numbers."""
    document: dict[str, Any] = json.loads(json.dumps(values, default=_plain))
    return document


def _plain(value: Any) -> object:
    return value.item() if hasattr(value, "item") else str(value)
