"""`rmkit drift NAME --watch`: the hacking alarm over the reward log, step by step of the trainer.

Completions of one step (the trainer's `step`, or BLOCK completions in the order in which they were served where it
sends none) are one point of each measure; see `rmkit.signal.hacking`. Length is the column `length` (tokens) where it
came, else characters; entropy is the column `entropy`. Repetition and canaries need texts in the log (`--log-text`).
Where the steps fall back to the first one another run begins, and the last run is watched; where they fall back to a
later one the trainer went on from a checkpoint, and its steps from there on count as they came again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from evaluation.drift.served import Observed
from rmkit.errors import UsageError, unknown
from rmkit.ids import parse_messages
from rmkit.signal import hacking
from rmkit.signal.hacking import Alarm, AlarmSettings, HackingAlarm
from rmkit.types import Completion

BLOCK = 256
LATE = 2  # steps by which workers may be behind one another


@dataclass(frozen=True, kw_only=True)
class Watched:
    """`alarm` is the first of the run, `now` that of its last step; `measures` are the last step's means."""

    model: str
    steps: int
    truth: tuple[str, ...]
    measures: Mapping[str, float | None]
    alarm: Alarm | None
    now: Alarm | None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def watch(
    observed: Sequence[Observed],
    *,
    model: str,
    truth: Sequence[str] = (),
    canaries: Sequence[str] = (),
    proxy: str | None = None,
    settings: AlarmSettings | None = None,
) -> Watched:
    """Without `truth` every component but the proxy is one. Raises UsageError for a component that never came."""
    settings = settings or AlarmSettings()
    steps = _last_run(observed)
    names = sorted({name for _, part in steps for one in part for name in one.components})
    for name in (*truth, *([proxy] if proxy else ())):
        if name not in names:
            raise UsageError(unknown("component", name, names) + " (what the signal's mix names, with weight 0 too)")
    truth = tuple(truth) or tuple(name for name in names if name != (proxy or "reward"))
    alarm = HackingAlarm(truth=truth, settings=settings)
    measures: dict[str, float | None] = {}
    now: Alarm | None = None
    for number, part in steps:
        measures = _measures(part, truth=truth, canaries=canaries, proxy=proxy)
        now = alarm.step(number, measures)
    return Watched(model=model, steps=len(steps), truth=truth, measures=measures, alarm=alarm.alarm, now=now)


def _last_run(observed: Iterable[Observed]) -> list[tuple[int, list[Observed]]]:
    runs: list[dict[int, list[Observed]]] = [defaultdict(list)]
    last, stepless = 0, 0
    for one in observed:
        step = one.step
        if step is None:
            step, stepless = stepless // BLOCK, stepless + 1
        if step < last - LATE:
            if step > min(runs[-1]):
                runs[-1] = defaultdict(list, {number: part for number, part in runs[-1].items() if number < step})
            else:
                runs.append(defaultdict(list))
            last = step
        last = max(last, step)
        runs[-1][step].append(one)
    return sorted(runs[-1].items())


def _measures(
    part: Sequence[Observed], *, truth: Sequence[str], canaries: Sequence[str], proxy: str | None
) -> dict[str, float | None]:
    texts = [Completion(parse_messages(one.text)).text for one in part if one.text is not None]
    values: dict[str, Iterable[float | None]] = {
        hacking.PROXY: [one.components.get(proxy) if proxy else one.proxy for one in part],
        hacking.LENGTH: [float(one.columns.get("length") or one.chars) for one in part],
        hacking.ENTROPY: [one.columns.get("entropy") for one in part],
        hacking.REPETITION: map(hacking.repetition, texts),
        hacking.CANARY: [float(hacking.has_canary(text, canaries)) for text in texts] if canaries else [],
        **{name: [one.components.get(name) for one in part] for name in truth},
    }
    return {name: hacking.mean(one) for name, one in values.items()}


def text(watched: Watched) -> str:
    """The alarm, or that there is none, and what was watched."""
    measures = ", ".join(f"{name} {value:.3g}" for name, value in watched.measures.items() if value is not None)
    lines = [f"{watched.model}: {watched.steps} steps; the last: {measures or 'nothing'}"]
    missing = [name for name, value in watched.measures.items() if value is None]
    if missing:
        lines.append(f"not in the log: {', '.join(missing)}")
    lines.append(f"ALARM  {watched.alarm}" if watched.alarm else "no alarm")
    if watched.alarm and not watched.now:
        lines.append("at the last step it no longer rings")
    return "\n".join(lines)
