"""`rmkit bench studio-scale`: a project of 100k items with many answers, its pages opened and used for long.

The project is made in a ledger without waits for the disk and then copied, as the answers' content is what matters.
Each page is opened by its link in the sidebar, once right after the start and once more; what counts is the time until
its content stands there complete. Then people work, over HTTP and by key, and pages are opened, while the server's
memory is read after every action: flat means that its slope over the second half is what the new answers themselves
take, a few kilobytes each.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from labeling_ui.benchmarks.browser import chromium, opened, ready, signed_in
from labeling_ui.benchmarks.measure import measure
from labeling_ui.benchmarks.process import Server
from rmkit.cli import arguments, display

PROJECT, PEOPLE = "big", 6
PAGES = (
    "annotate",
    "my-work",
    "project",
    "people",
    "answers",
    "agreement",
    "task",
    "known-items",
    "playground",
    "data",
    "datasets",
    "models",
    "rubrics",
    "settings",
)
ABOUT = (
    "A project of many items with many answers of six people, on a real server. `first` and `again`: seconds from the "
    "click in the sidebar to the complete page in headless Chromium, right after the start and later; `cpu`: processor "
    "seconds of the server in the second opening. Then a long use: of every ten actions six are answers over HTTP, two "
    "are answers by key, two open a page. Memory is the server's resident set after each action; the merge into the "
    "warehouse runs every 20 s in the same process. Wanted: every page under 1 s, memory flat."
)


@dataclass(frozen=True, kw_only=True)
class ScaleConfig:
    """`items` of the project, `answers` given before, `actions` of the long use."""

    items: int = 100_000
    answers: int = 20_000
    actions: int = 2000
    seed: int = 0


def run(home: Path, config: ScaleConfig) -> dict[str, object]:
    """The figures of one run in an empty `home`."""
    began = time.monotonic()
    tokens = filled_project(home, config)
    built_s, merge = time.monotonic() - began, _merge(home)
    server = Server(home)
    server.start()
    try:
        pages, memory = asyncio.run(_in_browser(server, tokens, config))
    finally:
        server.kill()
    return {
        "items": config.items,
        "answers_before": config.answers,
        "build_s": round(built_s),
        **merge,
        "load_s": pages.pop("load"),
        "pages": pages,
        "slowest_first_s": max(page["first_s"] for page in pages.values()),
        "slowest_again_s": max(page["again_s"] for page in pages.values()),
        **_memory(memory),
    }


def filled_project(home: Path, config: ScaleConfig) -> dict[str, str]:
    """A project in which people of known skill have judged; the tokens of its people, `lea` is the admin."""
    from data_pipelines import sample
    from data_pipelines.ingest.command import ingest
    from labeling_ui.desk.answers import Answer
    from labeling_ui.projects.definition import read_definition
    from labeling_ui.projects.people import Person, add_person
    from labeling_ui.projects.project import create_project
    from rmkit.ledger import open_ledger
    from rmkit.ledger.transfer import snapshot

    file, _ = sample.write(home / "sample", sample.SampleConfig(pairs=config.items))
    report = ingest(file, dataset=PROJECT)
    assert report.version is not None
    rng = random.Random(config.seed)
    fast = Path("/dev/shm") if Path("/dev/shm").is_dir() else home
    with tempfile.TemporaryDirectory(dir=fast) as folder, open_ledger(Path(folder) / "ledger.sqlite") as ledger:
        task = replace(read_definition("pairwise"), quiz=(), overlap=2, seed=config.seed)
        desk = create_project(ledger, PROJECT, task=task, data=report.version.ref).desk(ledger)
        people = [Person(f"person-{number}", "annotator") for number in range(PEOPLE)]
        tokens = {person.name: add_person(ledger, person.name, role=person.role) for person in people}
        tokens["lea"] = add_person(ledger, "lea", role="admin")
        with display.progress("answering", config.answers) as advance:
            for number in range(config.answers):
                person = people[number % PEOPLE]
                (hold,) = desk.open(person)
                right = hold.order.index(random.Random(hold.item).randrange(2))
                better = right if rng.random() < 0.95 - 0.05 * (number % PEOPLE) else 1 - right
                answer = Answer(better=better, strength=rng.randrange(1, 4))
                desk.submit(person, hold.id, answer, active_ms=rng.randrange(2000, 9000), wall_ms=9000)
                advance(1)
        snapshot(ledger, home / "ledger.sqlite")
    return tokens


def _merge(home: Path) -> dict[str, object]:
    """Time and memory of the merge that the studio does in the background, of all answers and of nothing new."""
    from rmkit.ledger import open_ledger
    from warehouse.events.sync import sync
    from warehouse.store import open_warehouse

    took = []
    with open_ledger(home / "ledger.sqlite") as ledger:
        for _ in range(2):
            began = time.monotonic()
            with open_warehouse() as connection:
                sync(connection, ledger)
            took.append(round(time.monotonic() - began, 2))
    return {"merge_all_s": took[0], "merge_nothing_s": took[1]}


async def _in_browser(
    server: Server, tokens: Mapping[str, str], config: ScaleConfig
) -> tuple[dict[str, Any], list[float]]:
    """Times of the pages by name (and of the first load), the server's memory after each action."""
    async with chromium() as browser:
        began = time.monotonic()
        lead = await signed_in(browser, server.url, tokens["lea"])
        figures: dict[str, Any] = {"load": round(time.monotonic() - began, 2)}
        others = [page for page in PAGES if page != "annotate"]
        for name in (*others, "annotate"):  # annotate is what the sign-in shows
            figures[name] = {"first_s": round(await opened(lead, name), 2)}
        for name in (*others, "annotate"):
            before = server.cpu_s()
            figures[name] |= {"again_s": round(await opened(lead, name), 2)}
            figures[name] |= {"cpu_s": round(server.cpu_s() - before, 2)}
        annotator = await signed_in(browser, server.url, tokens["person-0"])
        return figures, await _long_use(server, lead, annotator, tokens, config)


async def _long_use(
    server: Server, lead: Any, annotator: Any, tokens: Mapping[str, str], config: ScaleConfig
) -> list[float]:
    """Megabytes after each action. The pages are new ones, in a new session, every fifty actions."""
    rng, memory, names = random.Random(config.seed), [], itertools.cycle(PAGES[1:])
    with (
        httpx.Client(base_url=f"{server.url}/api/projects/{PROJECT}", timeout=60) as client,
        display.progress("using", config.actions) as advance,
    ):
        for number in range(config.actions):
            match number % 10:
                case 3 | 7:
                    await annotator.keyboard.press(str(rng.choice([1, 2, 3, 5, 6, 7])))
                    await annotator.wait_for_timeout(50)
                    await ready(annotator)
                case 5 | 9:
                    await opened(lead, next(names))
                case _:
                    _answer(client, tokens[f"person-{1 + number % (PEOPLE - 1)}"], rng)
            if number % 50 == 49:
                await lead.reload()
                await ready(lead)
            memory.append(server.memory_mb())
            advance(1)
    return memory


def _answer(client: httpx.Client, token: str, rng: random.Random) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    (held,) = client.get("/next", headers=headers).raise_for_status().json()
    body = {"answer": {"better": rng.randrange(2), "strength": rng.randrange(1, 4)}, "active_ms": 900}
    client.post(f"/answers/{held['id']}", json=body, headers=headers).raise_for_status()


def _memory(memory: list[float]) -> dict[str, object]:
    """Medians of the thirds and the slope of the second half, in MB and kilobytes an action."""
    thirds = [round(float(np.median(third)), 1) for third in np.array_split(np.array(memory), 3)]
    half = np.array(memory[len(memory) // 2 :])
    slope = np.polyfit(np.arange(len(half)), half, 1)[0] if len(half) > 1 else float("nan")
    return {
        "actions": len(memory),
        "memory_mb_thirds": thirds,
        "memory_mb_first_last_most": [round(value, 1) for value in (memory[0], memory[-1], max(memory))],
        "slope_kb_an_action": round(1000 * float(slope), 2),
    }


def main(argv: list[str]) -> int:
    """Returns 0 whatever the figures say: they depend on the machine."""
    parser = arguments.parser(
        "bench studio-scale",
        "The studio on a project of 100k items: time to open each page, memory over a long use.",
        examples=["bench studio-scale", "bench studio-scale --items 2000 --answers 200 --actions 50 --json"],
    )
    for name, value in ScaleConfig.__dataclass_fields__.items():
        parser.add_argument(f"--{name}", type=int, default=value.default, help=f"default: {value.default}")
    parser.add_page(help="write its section of the results page there")
    options = parser.parse_args(argv)
    measure(argv, options, ScaleConfig, run, name="studio-scale", about=ABOUT, text=_text)
    return 0


def _text(figures: Mapping[str, Any]) -> str:
    lines = [f"{name:<28}{value}" for name, value in figures.items() if name != "pages"]
    table = [f"{'page':<12}{'first':>8}{'again':>8}{'cpu':>8}"]
    table += [
        f"{name:<12}{page['first_s']:>8}{page['again_s']:>8}{page['cpu_s']:>8}"
        for name, page in figures["pages"].items()
    ]
    return "\n".join([*table, "", *lines])
