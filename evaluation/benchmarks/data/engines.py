"""`rmkit bench engines`: recipes on Ray's actors beside the same in one process.

Generated pairs (see `rmkit bench ingest`) are ingested once; then `clean`, and a recipe with the step `score` (model
`length`), run with `--engine local` and with `--engine ray`, each in a copy of that warehouse. With `--kills` so many
processes that run Ray's actors die by SIGKILL meanwhile, spread over the time that one process took. The run fails
unless both engines give one digest and the same counts in every step.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.benchmarks.data.ingest import generate
from evaluation.benchmarks.data.limits import RMKIT, SCORE
from rmkit.cli import arguments, display
from rmkit.errors import RmkitError

LOOK_S = 0.5  # between looks for an actor: a look walks through all processes below, beside what is measured
PAUSE_S = 2.0  # between kills at least: long enough that Ray has started another actor


def main(argv: list[str]) -> int:
    """Entry point of `rmkit bench engines`. Raises RmkitError where the engines differ."""
    parser = arguments.parser(
        "bench engines",
        "Recipes on Ray's actors beside one process: seconds, and the same digest though workers are killed.",
        examples=["bench engines --rows 20000", "bench engines --rows 2000000 --kills 5 --workers 2"],
    )
    parser.add_argument("--rows", type=arguments.positive, default=100_000, help="pairs (default 100,000)")
    parser.add_argument("--workers", type=arguments.positive, default=2, help="Ray's actors (default 2)")
    parser.add_argument("--kills", type=int, default=0, help="actors to kill in each run (default 0)")
    parser.add_argument("--recipes", default="clean,scored", metavar="NAME,...", help="clean, scored (default both)")
    parser.add_seed(help="of the generator")
    options = parser.parse_args(argv)
    results = []
    with tempfile.TemporaryDirectory(prefix="rmkit-engines-") as folder:
        place = Path(folder)
        generate(place / "rows.parquet", options.rows, seed=options.seed)
        (place / "scored.toml").write_text(SCORE)
        _finished([*RMKIT, "ingest", str(place / "rows.parquet"), "--name", "rows", "--yes"], place / "home")
        for name in options.recipes.split(","):
            recipe = name if name == "clean" else str(place / f"{name}.toml")
            command = [*RMKIT, "run", recipe, "--data", "rows@v1", "--json"]
            local = _run(place, [*command, "--engine", "local"])
            under_ray = [*command, "--engine", "ray", "--workers", str(options.workers)]
            pause = max(PAUSE_S, local["seconds"] / (options.kills + 2))
            ray = _run(place, under_ray, n_kills=options.kills, pause=pause)
            results.append({"recipe": name, "rows": options.rows, **_compared(name, local, ray)})
    display.emit({"runs": results, "workers": options.workers}, as_json=options.json, text=_text(results))
    return 0


def _compared(name: str, local: Mapping[str, Any], ray: Mapping[str, Any]) -> dict[str, Any]:
    counts = [[{key: step[key] for key in ("step", "n_in", "n_kept")} for step in one["steps"]] for one in (local, ray)]
    if local["digest"] != ray["digest"] or counts[0] != counts[1]:
        raise RmkitError(f"{name}: one process gives {local['digest']}, Ray {ray['digest']}; steps {counts}")
    return {
        "digest": local["digest"],
        "rows_out": local["steps"][-1]["n_kept"],
        "local_s": local["seconds"],
        "ray_s": ray["seconds"],
        "ratio": round(ray["seconds"] / local["seconds"], 2),
        "kills": ray["kills"],
    }


def _run(place: Path, command: Sequence[str], *, n_kills: int = 0, pause: float = PAUSE_S) -> dict[str, Any]:
    """The command's own result, its seconds, and how many of its workers were killed."""
    with tempfile.TemporaryDirectory(dir=place) as folder:
        home = Path(folder) / "home"
        shutil.copytree(place / "home", home)
        start = time.perf_counter()
        out, kills = _finished(command, home, n_kills=n_kills, pause=pause)
        result: dict[str, Any] = json.loads(out)
        return result | {"seconds": round(time.perf_counter() - start, 1), "kills": kills}


def _finished(command: Sequence[str], home: Path, *, n_kills: int = 0, pause: float = PAUSE_S) -> tuple[str, int]:
    kills = 0
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as error:
        process = subprocess.Popen(
            command, env=os.environ | {"RMKIT_HOME": str(home)}, stdout=out, stderr=error, text=True
        )
        last = time.perf_counter()
        while process.poll() is None:
            time.sleep(LOOK_S if kills < n_kills else 0.05)
            if kills < n_kills and time.perf_counter() - last >= pause and _kill_an_actor(process.pid):
                kills, last = kills + 1, time.perf_counter()
        for file in (out, error):
            file.seek(0)
        if process.returncode:
            raise RmkitError(f"{' '.join(command)} failed: {error.read()[-500:]}")
        return out.read(), kills


def _kill_an_actor(driver: int) -> bool:
    """SIGKILL to one process below `driver` that runs an actor of Ray Data; whether there was one."""
    import psutil  # type: ignore[import-untyped]

    try:
        for one in psutil.Process(driver).children(recursive=True):
            if "MapWorker" in " ".join(one.cmdline()):
                one.send_signal(signal.SIGKILL)
                return True
    except psutil.Error:  # it ended meanwhile
        pass
    return False


def _text(results: Sequence[Mapping[str, Any]]) -> str:
    head = ("recipe", "rows", "rows out", "one process, s", "Ray, s", "Ray / one", "workers killed", "digest of both")
    keys = ("recipe", "rows", "rows_out", "local_s", "ray_s", "ratio", "kills", "digest")
    return display.table(head, [tuple(str(one[key])[:12] for key in keys) for one in results])
