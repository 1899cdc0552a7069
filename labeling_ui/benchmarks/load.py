"""`rmkit bench studio`: people over HTTP and in browsers while the server is killed and started again.

At the end the ledger is read: every acknowledged judgment must be there exactly once, nobody may have judged an item
twice, and no item may have more answers than the task wants. Save times are those of answers over HTTP that were
acknowledged at the first try, so they are free of downtime.
"""

from __future__ import annotations

import argparse
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from labeling_ui.benchmarks.browser_people import Seen, annotate_in_browsers
from labeling_ui.benchmarks.http_people import Tally, annotate
from labeling_ui.benchmarks.measure import measure
from labeling_ui.benchmarks.process import Server
from rmkit.cli import arguments
from rmkit.errors import ConfigError
from rmkit.types import Event

OVERLAP = 2
PROJECT = "load"
FAULTS = ("lost", "stored_twice", "items_with_too_many", "person_twice_on_a_slot", "browser_lost", "browser_failures")
ABOUT = (
    "People over HTTP and in browsers (headless Chromium, by keyboard) annotate one project on loopback, while the "
    "server is killed (`SIGKILL`) at random moments and started again. Whoever gets no answer over HTTP repeats the "
    "request; a browser reconnects by itself. Afterwards the ledger is held against what was acknowledged: an id over "
    "HTTP, the next item on the screen in a browser. Wanted: no fault, and a save under 500 ms at p95."
)


@dataclass(frozen=True, kw_only=True)
class LoadConfig:
    """`annotators` over HTTP and `browsers`, each thinking `pause_s` on average; `kills` at random moments."""

    annotators: int = 12
    browsers: int = 3
    seconds: float = 180.0
    kills: int = 4
    pause_s: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.annotators < 0 or self.browsers < 0 or self.annotators + self.browsers < 1:
            raise ConfigError(f"at least one person, got {self.annotators} over HTTP and {self.browsers} in browsers")


def run(home: Path, config: LoadConfig) -> dict[str, object]:
    """The figures of one run in an empty `home`."""
    from labeling_ui.projects.people import add_person
    from rmkit.ledger import open_ledger

    with open_ledger(home / "ledger.sqlite") as ledger:
        _project(ledger, config)
        api, pages = (
            [(name, add_person(ledger, name, role="annotator")) for name in (f"{kind}-{n}" for n in range(count))]
            for kind, count in (("annotator", config.annotators), ("browser", config.browsers))
        )
    server, tally, seen, stop = Server(home), Tally(), Seen(), threading.Event()
    server.start()
    workers = [
        threading.Thread(
            target=annotate,
            args=(server.url, token, tally, stop),
            kwargs={"project": PROJECT, "rng": random.Random(f"{config.seed}/{name}"), "pause_s": config.pause_s},
        )
        for name, token in api
    ]
    if pages:
        settings = {"pause_s": config.pause_s, "seed": config.seed}
        workers.append(
            threading.Thread(target=annotate_in_browsers, args=(server.url, pages, seen, stop), kwargs=settings)
        )
    try:
        wall, memory = _disturb(server, workers, stop, config)
    finally:
        server.kill()
    return _figures(home, config, tally, seen, server=server, wall=wall, memory=memory)


def _project(ledger: Any, config: LoadConfig) -> None:
    """More items than there will be answers, so that nobody runs dry."""
    from data_pipelines import sample
    from data_pipelines.ingest.command import ingest
    from labeling_ui.projects.definition import read_definition
    from labeling_ui.projects.project import create_project
    from rmkit import paths

    people = config.annotators + config.browsers
    pairs = int(1.3 * people * config.seconds / max(config.pause_s, 0.05) / OVERLAP)
    file, _ = sample.write(paths.home() / "sample", sample.SampleConfig(pairs=max(pairs, 60)))
    report = ingest(file, dataset=PROJECT)
    assert report.version is not None
    task = replace(read_definition("pairwise"), quiz=(), overlap=OVERLAP, gold_share=0.0, repeat_share=0.05)
    create_project(ledger, PROJECT, task=task, data=report.version.ref)


def _disturb(
    server: Server, workers: list[threading.Thread], stop: threading.Event, config: LoadConfig
) -> tuple[float, list[float]]:
    """Let them work, with kills in between; seconds it took, and the server's memory twice a second."""
    begin, memory = time.monotonic(), []
    for worker in workers:
        worker.start()
    rng = random.Random(config.seed)
    at = sorted(rng.uniform(0.1, 0.9) * config.seconds for _ in range(config.kills))
    while (now := time.monotonic() - begin) < config.seconds and any(worker.is_alive() for worker in workers):
        if at and now >= at[0]:
            at.pop(0)
            server.restart()
        memory.append(server.memory_mb())
        time.sleep(0.5)
    stop.set()
    for worker in workers:
        worker.join()
    return time.monotonic() - begin, memory


def _figures(
    home: Path, config: LoadConfig, tally: Tally, seen: Seen, *, server: Server, wall: float, memory: list[float]
) -> dict[str, object]:
    events = _judgments(home)
    stored = Counter(str(event.id) for event in events)
    of_item = Counter(extra["item"] for extra in map(_extra, events) if extra["slot"].isdigit())
    by_person = Counter((event.actor, _extra(event)["item"], _extra(event)["slot"]) for event in events)
    acknowledged, places = Counter(tally.acknowledged), _places(home)
    on_screen = Counter((name, *places.get(id, (-1, ""))) for name, id in seen.acknowledged)
    return {
        "annotators": config.annotators,
        "browsers": config.browsers,
        "wall_s": round(wall, 1),
        "acknowledged": len(tally.acknowledged),
        "browser_acknowledged": len(seen.acknowledged),
        "stored": len(events),
        "browser_stored": sum(event.actor.startswith("browser-") for event in events),
        "lost": sum(event not in stored for event in acknowledged),
        "browser_lost": sum(by_person[judgment] != count for judgment, count in on_screen.items()),
        "stored_twice": sum(count > 1 for count in stored.values()) + sum(count > 1 for count in acknowledged.values()),
        "items_with_too_many": sum(count > OVERLAP for count in of_item.values()),
        "person_twice_on_a_slot": sum(count > 1 for count in by_person.values()),
        "items_complete": sum(count == OVERLAP for count in of_item.values()),
        "kills": len(server.down_s),
        "restart_s": [round(value, 1) for value in server.down_s],
        "retries": tally.retries,
        "refused": dict(tally.refused),
        "browser_reloads": seen.reloads,
        "browser_failures": seen.failures,
        "saves_a_second": round((len(tally.acknowledged) + len(seen.acknowledged)) / wall, 1),
        "save_ms": _percentiles_ms(tally.save_s),
        "browser_key_to_next_item_ms": _percentiles_ms(seen.next_item_s),
        "memory_mb": [round(memory[0], 1), round(max(memory), 1), round(memory[-1], 1)],
    }


def _judgments(home: Path) -> list[Event]:
    from rmkit.ledger import open_ledger

    with open_ledger(home / "ledger.sqlite") as ledger:
        return [one.event for one in ledger.events(kinds=["judgment"]) if _extra(one.event).get("project") == PROJECT]


def _places(home: Path) -> dict[str, tuple[int, str]]:
    """Item and slot by the id under which they were given out."""
    from labeling_ui.desk.leases import KIND
    from rmkit.ledger import open_ledger

    with open_ledger(home / "ledger.sqlite") as ledger:
        records = [(record.key.split("/"), record.value["id"]) for record in ledger.records(KIND, prefix=f"{PROJECT}/")]
    return {id: (int(item), slot) for (_, item, slot), id in records}


def _extra(event: Event) -> Mapping[str, Any]:
    extra: Mapping[str, Any] = event.payload.get("extra") or {}
    return extra


def _percentiles_ms(times_s: list[float]) -> dict[str, float]:
    if not times_s:
        return {}
    times = 1000 * np.array(times_s)
    return {f"p{q}": round(float(np.percentile(times, q)), 1) for q in (50, 95, 99)}


def main(argv: list[str]) -> int:
    """Returns 1 where a judgment was lost or doubled, or an item given out too often."""
    options = _parser().parse_args(argv)
    figures = measure(argv, options, LoadConfig, run, name="studio", about=ABOUT, text=_text)
    return int(any(figures[name] for name in FAULTS))


def _parser() -> argparse.ArgumentParser:
    parser = arguments.parser(
        "bench studio",
        "People over HTTP and in browsers while the server is killed and started again.",
        examples=["bench studio", "bench studio --annotators 4 --browsers 0 --seconds 20 --kills 1 --json"],
    )
    plain = LoadConfig()
    parser.add_argument("--annotators", type=int, default=plain.annotators, help="people over HTTP (default: 12)")
    parser.add_argument("--browsers", type=int, default=plain.browsers, help="people in headless Chromium (default: 3)")
    parser.add_argument("--seconds", type=float, default=plain.seconds)
    parser.add_argument("--kills", type=int, default=plain.kills)
    parser.add_argument("--pause-s", type=float, default=plain.pause_s, help="mean time a person thinks")
    parser.add_seed(plain.seed)
    parser.add_page(help="write its section of the results page there")
    return parser


def _text(figures: Mapping[str, Any]) -> str:
    """One line a figure."""
    return "\n".join(
        f"{name:<28}{json.dumps(value) if isinstance(value, dict) else value}" for name, value in figures.items()
    )
