"""`rmkit bench story`: a votes file of unknown columns to a retrained model in production, killed between its stages.

    FOLDER/story.html       the page: a picture of every stage, the commands, the lineage
    FOLDER/stages/01-votes.json ...    what each finished stage gave
    FOLDER/home             the data home; FOLDER/models, policies, votes.csv ... what users would have beside it

The stages run in a process of their own. With kills, its whole process group gets SIGKILL soon after each stage but the
last, which is while the next one is under way (its trainer, service or studio included), and the story is started
again; it goes on with the first stage that has no record.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from labeling_ui.benchmarks.story.checks import Check, checks
from labeling_ui.benchmarks.story.page import page
from labeling_ui.benchmarks.story.stages import STAGES, Story
from rmkit.atomic import write_text
from rmkit.cli import arguments, display
from rmkit.config import read_object
from rmkit.errors import DataError, RmkitError

PAGE, KILLS = "story.html", "kills.json"
LATEST_KILL_S = 1.2  # after the record of a stage; the next one is under way then
IN_MID_WORK = {  # stages that are killed once their trainer has something to go on from
    "grpo": "policies/first/checkpoint-*",
    "retrain": "home/runs/explicit-sums/*",
    "again": "policies/second/checkpoint-*",
}


@dataclass(frozen=True, kw_only=True)
class Result:
    """`killed` names the stages that were under way at each kill; `held` what must hold at the end."""

    folder: Path
    page: Path
    seconds: float
    killed: tuple[str, ...]
    held: tuple[Check, ...]

    def as_json(self) -> dict[str, object]:
        return {**asdict(self), "folder": str(self.folder), "page": str(self.page)}


def main(argv: list[str]) -> int:
    """0 where all that must hold at the end holds, 1 otherwise."""
    parser = arguments.parser(
        "bench story",
        "The whole loop: votes, versions, models, gate, signal, GRPO, alarm, studio, retraining, lineage; killed "
        "between its stages and gone on.",
        examples=["bench story -o story", "bench story -o story --no-kills"],
    )
    parser.add_argument("--no-kills", action="store_true", help="let it run through")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_output(
        "folder of the story (default: story); one that is there is gone on with", type=arguments.local_path
    )
    parser.add_argument("--worker", action="store_true", help="run the stages in this process, nothing is killed")
    options = parser.parse_args(argv)
    import trl  # noqa: F401 - refused at once where it is missing

    folder = (options.output or Path("story")).resolve()
    if options.worker:
        run_stages(folder)
        return 0
    result = tell(folder, kills=not options.no_kills, seed=options.seed)
    display.emit(result, as_json=options.json, text=_text(result))
    return 0 if all(one.holds for one in result.held) else 1


def tell(folder: Path, *, kills: bool = True, seed: int = 0) -> Result:
    """The whole story. Raises RmkitError where a stage fails."""
    began, draw = time.monotonic(), random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    names, killed = list(STAGES), _killed(folder)
    boundaries = [name for name in names[:-1] if name not in _records(folder)] if kills else []
    with display.progress("stages", len(names)) as advance:
        shown = 0
        while True:
            worker = _start(folder)
            while worker.poll() is None:
                finished = len(_records(folder))
                advance(finished - shown)
                shown = finished
                if boundaries and _path(folder, boundaries[0]).exists():
                    following = names[names.index(boundaries.pop(0)) + 1]
                    _until_mid_work(folder, following, worker)
                    time.sleep(draw.uniform(0.2, LATEST_KILL_S))
                    under_way = next((name for name in names if name not in _records(folder)), "")
                    if under_way and worker.poll() is None:
                        os.killpg(worker.pid, signal.SIGKILL)
                        killed.append(under_way)
                        write_text(folder / KILLS, json.dumps(killed))
                        break
                time.sleep(0.05)
            status = worker.wait()
            if status == 0:
                advance(len(names) - shown)
                break
            if status != -signal.SIGKILL:
                raise RmkitError(f"the story stopped (status {status}): {_last_line(folder)}; the same command goes on")
    facts = {name: record["facts"] for name, record in _records(folder).items()}
    held = tuple(checks(folder / "home", facts))
    seconds = round(time.monotonic() - began, 1)
    write_text(folder / PAGE, page(_records(folder), held, killed=killed, seconds=seconds))
    return Result(folder=folder, page=folder / PAGE, seconds=seconds, killed=tuple(killed), held=held)


def run_stages(folder: Path) -> None:
    """Every stage that has no record yet, in order."""
    for name, stage in STAGES.items():
        records = _records(folder)
        if name in records:
            continue
        story, start = Story(folder, {done: record["facts"] for done, record in records.items()}), time.monotonic()
        facts = stage(story)
        record = {"facts": facts, "commands": story.commands, "seconds": round(time.monotonic() - start, 1)}
        path = _path(folder, name)
        path.parent.mkdir(exist_ok=True)
        write_text(path, json.dumps(record, default=str))


def _until_mid_work(folder: Path, name: str, worker: subprocess.Popen[bytes]) -> None:
    while name in IN_MID_WORK and not any(folder.glob(IN_MID_WORK[name])):
        if worker.poll() is not None or _path(folder, name).exists():
            return
        time.sleep(0.05)


def _start(folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "rmkit", "bench", "story", "--worker", "-o", str(folder)]
    with (folder / "story.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def _path(folder: Path, name: str) -> Path:
    return folder / "stages" / f"{list(STAGES).index(name) + 1:02d}-{name}.json"


def _records(folder: Path) -> Mapping[str, dict[str, Any]]:
    """The records of the finished stages, in order."""
    paths = {name: _path(folder, name) for name in STAGES}
    return {
        name: read_object(path, raises=DataError, hint=f"delete {path}, the stage runs again")
        for name, path in paths.items()
        if path.exists()
    }


def _killed(folder: Path) -> list[str]:
    """The stages that were under way at the kills so far, whichever command killed them."""
    path = folder / KILLS
    return list(json.loads(path.read_text())) if path.exists() else []


def _last_line(folder: Path) -> str:
    lines = (folder / "story.log").read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "no output"


def _text(result: Result) -> str:
    rows = [["yes" if one.holds else "NO", one.what, one.seen] for one in result.held]
    killed = f"killed {len(result.killed)} times, in: {', '.join(result.killed)}" if result.killed else "not killed"
    return "\n".join(
        [display.table(("holds", "what", "seen"), rows), killed, f"{result.seconds:.0f} s; page {result.page}"]
    )
