"""Running steps so that a kill loses at most the step under way.

Each finished step leaves a folder $RMKIT_HOME/runs/KEY with what it dropped, its facts and the frame it kept. KEY is a
digest of the input (version, rows and votes), of benchmarks and gold labels, of the step's and all earlier steps'
configs and reward models, and of all source code that a step can run (rmkit's, that of a step from elsewhere, the
libraries' versions), so a changed recipe, version, model or rmkit never picks up an old result. A folder appears by one
rename and is complete or absent. Only the newest kept frame is stored; the folders go once the version is committed,
or, where a kill came between, when the next recipe starts: each says of which run it is.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl

from data_pipelines.steps import Context, run_step, step_module
from rmkit import paths
from rmkit.atomic import draft_folder, put
from rmkit.cli import display
from rmkit.errors import RmkitError
from rmkit.ids import digest
from rmkit.source_digest import source_digest

PACKAGES = ("rmkit", "rubrics", "warehouse", "data_pipelines")  # what a step of ours may import
KEPT, DROPPED, REPORT = "kept.arrow", "dropped.arrow", "report.json"
CONFIG = "run_config"  # key of the report: of which run the step is
RECORDS = "records-"  # + table.arrow


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


def run_steps(
    frame: pl.DataFrame, steps: Sequence[tuple[str, Any]], *, context: Context, input_digest: str, run: str
) -> tuple[pl.DataFrame, list[StepRun]]:
    """The frame after all steps, and what each did.

    `input_digest` is the digest of the version the frame comes from; `run` is its config as the warehouse records it.
    """
    keys = _keys(frame, steps, context, input_digest)
    cleaned, done = _finished(frame, keys)
    with display.progress("steps", total=len(steps)) as advance:
        advance(len(done))
        for (name, config), key in list(zip(steps, keys, strict=True))[len(done) :]:
            start, n_in = time.monotonic(), len(cleaned)
            result = run_step(name, cleaned, config, context=context)
            cleaned = result.kept
            done.append(
                StepRun(
                    key=key,
                    name=name,
                    config=_jsonable(asdict(config)),
                    n_in=n_in,
                    n_kept=len(cleaned),
                    wall_s=round(time.monotonic() - start, 3),
                    facts=_jsonable(result.facts),
                    dropped=result.dropped,
                    records=result.records,
                )
            )
            _save(cleaned, done, run)
            advance(1)
    return cleaned, done


def forget(configs: Collection[str], done: Iterable[StepRun] = ()) -> None:
    """Remove the folders of all steps of these runs, and of these steps, whichever run they were made for."""
    for step in done:
        shutil.rmtree(_folder(step.key), ignore_errors=True)
    for report in (paths.home() / "runs").glob(f"*/{REPORT}"):
        with contextlib.suppress(OSError, ValueError, RecursionError, AttributeError):
            if json.loads(report.read_text()).get(CONFIG) in configs:
                shutil.rmtree(report.parent, ignore_errors=True)


def _finished(frame: pl.DataFrame, keys: Sequence[str]) -> tuple[pl.DataFrame, list[StepRun]]:
    """What an earlier run left: the frame after the last finished step, and the steps until there."""
    last = max((at for at, key in enumerate(keys) if (_folder(key) / KEPT).exists()), default=-1)
    try:
        done = [_load(key) for key in keys[: last + 1]]
        return (_read(_folder(keys[last]) / KEPT) if done else frame), done
    except (OSError, ValueError, TypeError, KeyError, RecursionError, pl.exceptions.PolarsError):
        # Damaged, by a power cut say: nothing of it is needed.
        for key in keys:
            shutil.rmtree(_folder(key), ignore_errors=True)
        return frame, []


def _save(cleaned: pl.DataFrame, done: Sequence[StepRun], run: str) -> None:
    """Store the newest step; the frame of the one before it is not needed any more."""
    newest = done[-1]
    with draft_folder(_folder(newest.key)) as draft:
        cleaned.write_ipc(draft / KEPT, compression="lz4")
        newest.dropped.write_ipc(draft / DROPPED, compression="lz4")
        for table, rows in newest.records.items():
            rows.write_ipc(draft / f"{RECORDS}{table}.arrow", compression="lz4")
        report = {name: value for name, value in vars(newest).items() if name not in ("dropped", "records", "reused")}
        (draft / REPORT).write_text(json.dumps(report | {CONFIG: run}))
        put(draft, _folder(newest.key), replace=True)
    if len(done) > 1:
        (_folder(done[-2].key) / KEPT).unlink(missing_ok=True)


def _load(key: str) -> StepRun:
    report = json.loads((_folder(key) / REPORT).read_text())
    del report[CONFIG]
    records = {path.stem.removeprefix(RECORDS): _read(path) for path in sorted(_folder(key).glob(f"{RECORDS}*.arrow"))}
    return StepRun(**report, dropped=_read(_folder(key) / DROPPED), records=records, reused=True)


def _read(path: Path) -> pl.DataFrame:
    return pl.read_ipc(path)


def _folder(key: str) -> Path:
    return paths.home() / "runs" / key


def _keys(frame: pl.DataFrame, steps: Sequence[tuple[str, Any]], context: Context, inputs: str) -> list[str]:
    """One key per step, each depending on all before it."""
    key = digest([inputs, *map(_content, (frame, context.benchmarks, *context.gold.values()))])
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


def _content(frame: pl.DataFrame) -> str:
    """Digest of all cells in order. Good for one polars version, which the key covers."""
    return hashlib.sha256(frame.hash_rows().to_numpy().tobytes()).hexdigest()


def _jsonable(values: dict[str, Any]) -> dict[str, object]:
    """The same values as they come back from a stored report: lists for tuples, plain numbers."""
    document: dict[str, Any] = json.loads(json.dumps(values, default=_plain))
    return document


def _plain(value: Any) -> object:
    return value.item() if hasattr(value, "item") else str(value)
