"""The wheel in environments of its own: the base alone, and the lowest versions that pyproject.toml allows."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from pathlib import Path

import pytest

from data_pipelines import sample

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOT_LOWEST = ("all", "dev", "docs", "gpu")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True)
    return next(folder.glob("*.whl"))


class Environment:
    """A virtual environment in a folder of its own, in which commands run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)

    def pip(self, *arguments: str) -> None:
        subprocess.run([str(self.folder / "venv/bin/python"), "-m", "pip", *arguments], check=True, cwd=self.folder)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.argv(*command), cwd=self.folder, env=self.env(), capture_output=True, text=True)

    def argv(self, program: str, *arguments: str) -> list[str]:
        return [str(self.folder / "venv/bin" / program), *arguments]

    def env(self) -> dict[str, str]:
        return {"PATH": "/usr/bin:/bin", "RMKIT_HOME": str(self.folder / "home"), "HOME": str(self.folder)}


def test_the_base_wheel_is_a_client_and_says_what_else_there_is(wheel: Path, tmp_path: Path) -> None:
    base = Environment(tmp_path)
    base.pip("install", "--quiet", str(wheel))
    assert base.run("rmkit", "--help").stdout.startswith("rmkit ")
    assert base.run("rmkit", "doctor").returncode == 0
    assert base.run("python", "-c", "import rmkit.serve.clients, rmkit.config, rmkit.types").stderr == ""
    for command, extra in (("ingest a.jsonl", "data"), ("train explicit --data a", "train"), ("label serve", "ui")):
        answer = base.run("rmkit", *command.split())
        assert answer.returncode == 2
        assert re.fullmatch(rf"rmkit: \w+ is not installed; run: pip install '{wheel}\[{extra}\]'\n", answer.stderr), (
            answer.stderr
        )
    bench = base.run("rmkit", "bench", "scoring")
    assert (bench.returncode, bench.stderr.count("\n")) == (2, 1)
    assert "checkout" in bench.stderr


def lowest(*extras: str) -> list[str]:
    """Constraints to the lowest versions that the base and these extras allow."""
    requirements = [
        *PROJECT["dependencies"],
        *(line for name in extras for line in PROJECT["optional-dependencies"][name]),
    ]
    matches = [re.match(r"([\w.-]+)(?:\[[^]]*\])?[>=]=([\w.]+)", line) for line in requirements]
    return [f"{match[1]}=={match[2]}" for match in matches if match]


def test_the_lowest_versions_of_every_extra_agree(wheel: Path, tmp_path: Path) -> None:
    extras = [name for name in PROJECT["optional-dependencies"] if name not in NOT_LOWEST]
    constraints = tmp_path / "lowest.txt"
    constraints.write_text("\n".join(lowest(*extras)))
    environment = Environment(tmp_path)
    environment.pip("install", "--quiet", "--dry-run", "-c", str(constraints), f"{wheel}[all,ray-serve]")


@pytest.fixture(scope="module")
def oldest(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    environment = Environment(tmp_path_factory.mktemp("oldest"))
    constraints = environment.folder / "lowest.txt"
    constraints.write_text("\n".join(lowest("data", "report", "serve", "judge")))
    environment.pip("install", "--quiet", "-c", str(constraints), f"{wheel}[data,report,serve,judge]")
    return environment


def test_with_the_lowest_versions_the_chain_runs(oldest: Environment) -> None:
    data, _ = sample.write(oldest.folder / "mine", sample.SampleConfig(pairs=400))
    answer = oldest.run("rmkit", "quickstart", "--from", str(data), "--max-rows", "0")
    assert answer.returncode == 0, answer.stderr
    assert "sample-v2-lexical" in answer.stdout
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    served = subprocess.Popen(
        oldest.argv("rmkit", "serve", "sample-v2-lexical", "--port", str(port)),
        cwd=oldest.folder,
        env=oldest.env(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        for _ in range(120):
            if served.poll() is not None:
                break
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as ready:
                    assert ready.status == 200
                    return
            except OSError:
                time.sleep(0.5)
        served.terminate()
        pytest.fail(served.communicate()[0])
    finally:
        served.terminate()
        served.wait(30)
