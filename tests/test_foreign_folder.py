"""rmkit's rooms have common names: the command line works in folders that use them too, Python says who hides what."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from data_pipelines.ingest.command import ingest
from rmkit.cli.main import COMMANDS
from rmkit.data.export_folder import export_folder
from tests.exports import kind_rows, write_export

ROOT = Path(__file__).parents[1]
ROOMS = ("evaluation", "warehouse", "rubrics", "data_pipelines", "labeling_ui")


def _files(folder: Path) -> None:
    for room in ROOMS:
        (folder / f"{room}.py").write_text("raise SystemExit('the wrong room')\n")


def _packages(folder: Path) -> None:
    for room in ROOMS:
        (folder / room).mkdir()
        (folder / room / "__init__.py").write_text("raise SystemExit('the wrong room')\n")


def _mixed(folder: Path) -> None:
    """As users have them: a script, a package with code, folders that hold only data."""
    (folder / "evaluation.py").write_text("import json\nprint('my evaluation')\n")
    (folder / "warehouse").mkdir()
    (folder / "warehouse" / "__init__.py").write_text("STOCK = {}\n")
    (folder / "rubrics").mkdir()
    (folder / "rubrics" / "helpful.toml").write_text("")


@pytest.fixture(params=[_files, _packages, _mixed], ids=["files", "packages", "mixed"])
def foreign(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    request.param(folder)
    return folder


def run(
    folder: Path, *arguments: str, path: str | None = None, status: int = 0, launch: tuple[str, ...] = ("-m", "rmkit")
) -> str:
    """What a process started in the folder prints; rmkit lies behind the folder on its path, as it does installed."""
    environment = os.environ | {
        "PYTHONPATH": path or str(ROOT),
        "RMKIT_HOME": str(folder / "home"),
        "OMP_NUM_THREADS": "1",
    }
    ran = subprocess.run(
        [sys.executable, *launch, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == status, ran.stderr
    return ran.stdout + ran.stderr


def test_a_command_starts_in_a_folder_that_uses_the_names_of_our_rooms(tmp_path: Path) -> None:
    _mixed(tmp_path)
    assert "usage: rmkit eval" in run(tmp_path, "eval", "--help")


@pytest.mark.slow
def test_commands_run_in_a_folder_that_uses_the_names_of_our_rooms(foreign: Path) -> None:
    pairs = foreign / "pairs.jsonl"
    rows = [{"prompt": f"What is {n}?", "chosen": f"It is {n}.", "rejected": "No."} for n in range(9)]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run(foreign, "ingest", str(pairs))
    assert "pairs" in run(foreign, "datasets", path=f"{foreign}{os.pathsep}{ROOT}")
    assert "accuracy" in run(foreign, "eval", "length", "--data", "pairs", "--split", "all", "--json")


@pytest.mark.slow
def test_every_command_shows_its_help_there(foreign: Path) -> None:
    names = [name for group in COMMANDS.values() for name in group]
    code = (
        "import sys, contextlib\nfrom rmkit.cli import main as cli\nfor name in sys.argv[1:]:\n"
        "    sys.argv = ['rmkit', name, '--help']\n"
        "    try:\n        assert cli.main() == 0\n"
        "    except SystemExit as stopped:\n        assert not stopped.code, (name, stopped.code)\n"
    )
    told = run(foreign, *names, launch=("-c", code))
    assert all(f"usage: rmkit {name}" in told for name in names)


@pytest.mark.slow
def test_torchrun_and_children_work_there(foreign: Path) -> None:
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "1", "-m", "rmkit")
    data = write_export(foreign.parent / "data", kind_rows(60))
    told = run(foreign, "train", "lexical", "--data", str(data), "-o", str(foreign / "model"), launch=launch)
    assert (foreign / "model" / "reward_model.json").is_file(), told
    children = "import subprocess, sys, rmkit.cli.main as c; sys.argv = ['rmkit', '--version']; c.main(); "
    children += "print(subprocess.run([sys.executable, '-P', '-c', 'import warehouse.store'], check=True).returncode)"
    assert run(foreign, launch=("-c", children)).endswith("0\n")


def test_importing_rmkit_leaves_the_path_alone_and_says_who_hides_a_room(foreign: Path) -> None:
    code = "\n".join([
        "import sys; before = list(sys.path)",
        "import rmkit, rmkit.data.export_folder, rmkit.cli.main",
        "from rmkit.errors import UsageError",
        "try:\n    rmkit.data.export_folder.export_folder('pairs@v1')",
        "except UsageError as error:\n    print(error)",
        "assert sys.path == before",
    ])  # fmt: skip
    told = run(foreign, launch=("-c", code))
    assert told.count("\n") == 1
    assert str(foreign / "warehouse") in told
    assert "hides the package 'warehouse'" in told
    assert str(ROOT) in told


def test_other_threads_may_print_while_a_version_is_exported(
    home: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(
        "".join(json.dumps({"prompt": f"{n}?", "chosen": "a", "rejected": "b"}) + "\n" for n in range(200))
    )
    ingest(pairs)
    ended, printed = threading.Event(), 0

    def talk() -> None:
        nonlocal printed
        while not ended.is_set():
            print("from another thread")
            printed += 1
            ended.wait(0.0005)

    talker = threading.Thread(target=talk)
    talker.start()
    folders = {export_folder("pairs@v1") for _ in range(3)}
    ended.set()
    talker.join()
    assert len(folders) == 1
    assert capfd.readouterr().out == "from another thread\n" * printed
