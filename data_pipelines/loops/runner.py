"""Running a loop: every step of every round once, whatever is killed in between.

    FOLDER/loop.json                     which loop this is: its steps, settings and data
    FOLDER/round-2/03-train_policy.json  a finished step: what it left, its facts
    FOLDER/round-2/03-train_policy/      its artifact, where it makes one
    FOLDER/loop.md                       each round's numbers on one page

A step's record appears by one rename after everything that it left, so a loop that was killed goes on with the step it
was in, and that step goes on from its own savings: recipes keep their finished steps, every reply that was paid for is
in the ledger. Dataset versions go into one dataset, tagged `round-N` where a round ends. All draws depend on settings
and round alone; a loop that was killed ends as an unbroken one does.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_pipelines.converters.runner import convert
from data_pipelines.loops.loop import Climb, Loop, LoopStep, filled
from data_pipelines.loops.page import page
from data_pipelines.loops.records import Left, Place, StepRecord
from data_pipelines.recipes.recipe import Recipe, run_recipe
from rmkit import plugins
from rmkit.atomic import write_text
from rmkit.cli import display
from rmkit.config import read_object
from rmkit.errors import ConfigError, DataError, UsageError
from rmkit.generate.allowance import allowance
from rmkit.generate.call_cache import bill
from rmkit.ids import content_hash
from rmkit.ledger import open_ledger
from rmkit.user import user_name
from warehouse.store import open_warehouse
from warehouse.versions.branches import set_tag
from warehouse.versions.versions import get, resolve

SUMMARY, PAGE, LOCK = "loop.json", "loop.md", ".lock"


@dataclass(frozen=True, slots=True)
class LoopResult:
    """`names` is what the names in braces stood for at the end; `taken` says for each round whether it was."""

    folder: Path
    dataset: str
    rounds: int
    steps: tuple[StepRecord, ...]
    names: Mapping[str, Any]
    taken: tuple[bool, ...]
    usd: float

    def as_json(self) -> dict[str, object]:
        return asdict(self) | {"folder": str(self.folder)}


def run_loop(
    loop: Loop, data: str, *, folder: Path, dataset: str | None = None, max_usd: float | None = None
) -> LoopResult:
    """Run the loop, or what is left of it, on NAME[@REF]. `max_usd` bounds what its calls may cost in all, whichever
    step makes them: sampling, judges, rubrics, evaluations.

    Raises ConfigError where the folder holds another loop, UsageError where another process runs it, BudgetError where
    the money is spent, and whatever its steps raise; the same call then goes on.
    """
    if not loop.names:
        loop = loop.with_settings({})
    with open_warehouse(read_only=True) as connection:
        version = get(connection, resolve(connection, data))
    dataset = dataset or folder.name
    _same_loop(folder, loop, version.digest, dataset)
    with _locked(folder):
        purpose = f"loop {dataset} {content_hash(str(folder.resolve()))[:8]}"
        with allowance(purpose, max_usd=max_usd, spent_usd=_billed(purpose)):
            return _Run(loop, version.ref, dataset, folder, purpose).all()


class _Run:
    def __init__(self, loop: Loop, data: str, dataset: str, folder: Path, purpose: str) -> None:
        self.loop, self.data, self.dataset, self.folder = loop, data, dataset, folder
        self.purpose = purpose
        self.records: list[StepRecord] = []

    def all(self) -> LoopResult:
        rounds, taken = range(self.loop.rounds + 1), list[bool]()
        climber = None if self.loop.climb is None else _Climber(self.loop.climb, self.loop.names)
        with display.progress("steps", sum(len(_parts(self.loop.steps, number)) for number in rounds)) as advance:
            state = self._round(0, {}, {}, advance)
            for number in rounds[1:]:
                after = self._round(number, state, {} if climber is None else climber.names, advance)
                accepted = climber is None or climber.accepts(self._measure(number, climber.climb.measure))
                taken.append(accepted)
                state = after if accepted else state
                self._tag(number)
                self._write_page(taken)
        names = {step.name: state[step.name] for step in self.loop.steps if step.name}
        return LoopResult(
            self.folder, self.dataset, self.loop.rounds, tuple(self.records), names, tuple(taken), _billed(self.purpose)
        )

    def _round(
        self, number: int, state: Mapping[str, Any], climbed: Mapping[str, Any], advance: Callable[[int], object]
    ) -> dict[str, Any]:
        """What all steps so far left by name, and by `previous_` and name; finished steps are read."""
        given = {**self.loop.names_of(number, data=self.data), **climbed}
        first = {f"first_{key}": value for key, value in given.items()}
        left = dict(state)
        names = {**given, **first, **left}
        for at, part in enumerate(_parts(self.loop.steps, number), 1):
            record = self._step(number, at, part, names)
            self.records.append(record)
            if record.version is not None:
                names["version"] = record.version
            if name := part[-1].name:
                value = record.artifact or record.version
                left |= {name: value, f"previous_{name}": names.get(name, value)}
                names |= left
            advance(1)
        return left

    def _step(self, number: int, at: int, part: Sequence[LoopStep], names: Mapping[str, Any]) -> StepRecord:
        stem = self.folder / f"round-{number}" / f"{at:02d}-{part[-1].use}"
        path = stem.with_suffix(".json")
        if path.exists():
            return StepRecord(**read_object(path, raises=DataError, hint=f"delete {path}, it is made again"))
        path.parent.mkdir(exist_ok=True)
        where, start = f"loop {self.loop.name}: round {number}: step {at}", time.monotonic()
        version = filled(part[0].data, names, where=where) or names["version"]
        match part[0].kind:
            case "recipe":
                left = self._recipe(number, at, part, version, names, where)
            case "converter":
                (step,) = part
                result = convert(step.use, version, self.dataset, step.config(names, where=where))
                left = Left({step.use: _step_facts(result["steps"][0])}, version=str(result["version"]))  # type: ignore[index]
            case "loop":
                (step,) = part
                act = plugins.resolve("loop_steps", step.use, trusted=True).act
                done: Left = act(step.config(names, where=where), Place(version, self.dataset, stem))
                left = Left({step.use: done.facts}, done.version, done.artifact)
        record = StepRecord(
            round=number,
            number=at,
            use=part[-1].use,
            facts=left.facts,
            version=left.version,
            artifact=None if left.artifact is None else str(left.artifact),
            seconds=round(time.monotonic() - start, 3),
        )
        write_text(path, json.dumps(asdict(record), indent=1))
        return record

    def _recipe(
        self, number: int, at: int, part: Sequence[LoopStep], version: str, names: Mapping[str, Any], where: str
    ) -> Left:
        steps = tuple((step.use, step.config(names, where=where)) for step in part)
        recipe = Recipe(name=f"{self.loop.name}-{number}-{at}", description=self.loop.description, steps=steps)
        result = run_recipe(recipe, version, out=self.dataset)
        facts: dict[str, Any] = {}
        for step in result["steps"]:
            again = sum(key.split(" ")[0] == step["step"] for key in facts)
            facts[f"{step['step']} {again + 1}" if again else step["step"]] = _step_facts(step)
        return Left(facts, version=result["version"])

    def _measure(self, number: int, measure: str) -> float:
        use, _, fact = measure.partition(".")
        for record in self.records:
            value = record.facts.get(use, {}).get(fact) if record.round == number else None
            if isinstance(value, int | float):
                return float(value)
        raise ConfigError(f"loop {self.loop.name}: climb: round {number} has no number {measure!r}")

    def _tag(self, number: int) -> None:
        versions = [record.version for record in self.records if record.round == number and record.version]
        if versions:
            with open_warehouse() as connection:
                version_id = resolve(connection, versions[-1])
                set_tag(connection, version_id, f"round-{number}", actor=user_name(), move=True)

    def _write_page(self, taken: Sequence[bool]) -> None:
        write_text(self.folder / PAGE, page(self.loop, self.data, self.records, taken, usd=_billed(self.purpose)))


def _billed(purpose: str) -> float:
    """What calls under this purpose ever cost, whichever process made them."""
    with open_ledger() as ledger:
        return float(sum(float(str(row["usd"])) for row in bill(ledger) if row["purpose"] == purpose))


class _Climber:
    """Tries the setting where it stands, then a step further; goes back and turns around where that made it worse."""

    def __init__(self, climb: Climb, names: Mapping[str, Any]) -> None:
        self.climb = climb
        self.trial = self.held = float(names[climb.setting])
        self.best: float | None = None
        self.direction = 1.0

    @property
    def names(self) -> dict[str, float]:
        return {self.climb.setting: self.trial}

    def accepts(self, value: float) -> bool:
        accepted = self.best is None or value > self.best
        if accepted:
            self.best, self.held = value, self.trial
        else:
            self.direction = -self.direction
        self.trial = self.held + self.direction * self.climb.by
        return accepted


def _parts(steps: Sequence[LoopStep], number: int) -> list[list[LoopStep]]:
    """The parts of a round (0: the steps before the first): steps of recipes in a row are one recipe."""
    parts: list[list[LoopStep]] = []
    for step in steps:
        if step.once != (number == 0):
            continue
        last = parts[-1][-1] if parts else None
        if last is not None and last.kind == step.kind == "recipe" and not step.data and not last.name:
            parts[-1].append(step)
        else:
            parts.append([step])
    return parts


def _step_facts(step: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a recipe's step or a converter."""
    return {"rows_in": step["n_in"], "rows_out": step["n_kept"], **step["facts"]}


def _same_loop(folder: Path, loop: Loop, data: str, dataset: str) -> None:
    steps = [{**asdict(step), "options": dict(step.options)} for step in loop.steps]
    document = {
        "loop": loop.name,
        "dataset": dataset,
        "data": data,
        "rounds": loop.rounds,
        "settings": dict(loop.names),
    }
    document |= {"step": steps, "climb": None if loop.climb is None else asdict(loop.climb)}
    plain, summary = json.loads(json.dumps(document)), folder / SUMMARY
    if summary.exists() and any(folder.glob("round-*/*.json")):  # before its first step ends, a loop can be mended
        known = read_object(summary, raises=ConfigError, hint="name another folder")
        if other := [key for key in plain if known.get(key) != plain[key]]:
            raise ConfigError(f"{folder} holds a loop with other {', '.join(other)}; name another folder")
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_text(summary, json.dumps(plain, indent=1))


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(f"another process runs the loop in {folder}; wait for it") from None
        yield
