"""A recipe's step is done anew where any code, library or model behind it has changed since it was stopped."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from data_pipelines.recipes import runner
from data_pipelines.steps import Context, configure
from rmkit.source_digest import source_digest
from tests.data_pipelines.frames import frame, pair

ROOT = Path(__file__).parents[3]
EDITED = (
    "data_pipelines/algorithms/text.py",
    "rmkit/reliability/pf_ppo.py",
    "rmkit/__init__.py",  # the version
    "warehouse/write/rewrite.py",
    "rmkit/judge/prompts/pairwise_v1.jinja",
    "rubrics/clauses.py",
)
# Prints the key as it is, after each file was edited, and after another one that no step runs.
SCRIPT = """
import json, sys
from pathlib import Path
from data_pipelines.recipes import runner
from data_pipelines.steps import Context, configure
from rmkit.source_digest import source_digest
from tests.data_pipelines.frames import frame, pair

given = frame([pair("p", "x", "y")])
def key():
    source_digest.cache_clear()
    steps = [("quality", configure("quality", {}, where="test"))]
    return runner._keys([given], steps, Context(), "version")[0]
keys = [key(), key()]
for name in json.loads(sys.argv[1]):
    path = Path(name)
    path.write_text(path.read_text() + "\\n")
    keys.append(key())
print(json.dumps(keys))
"""


def test_an_edit_of_any_code_that_a_step_can_run_makes_another_key(tmp_path: Path) -> None:
    for package in (*runner.PACKAGES, "tests"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    names = [*EDITED, "tests/conftest.py"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "RMKIT_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", SCRIPT, json.dumps(names)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, again, *edited = json.loads(done.stdout)
    assert first == again
    assert len({first, *edited[:-1]}) == 1 + len(EDITED)
    assert edited[-1] == edited[-2]  # the tests are no part of it


def keys_of(name: str, config: Any) -> list[str]:
    source_digest.cache_clear()
    return runner._keys([frame([pair("p", "x", "y")])], [(name, config)], Context(), "version")


def test_a_step_from_elsewhere_brings_its_own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "their_steps"
    package.mkdir()
    for name in ("__init__", "shout", "helper"):
        (package / f"{name}.py").write_text("LOUD = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(runner, "step_module", lambda name: ModuleType(f"their_steps.{name}"))
    config = configure("quality", {}, where="test")
    before = keys_of("shout", config)
    assert keys_of("shout", config) == before
    (package / "helper.py").write_text("LOUD = 2\n")
    assert keys_of("shout", config) != before


def test_a_model_trained_anew_under_its_name_makes_another_key(home: Path) -> None:
    card = home / "models" / "a" / "reward_model.json"
    card.parent.mkdir(parents=True)
    card.write_text('{"fingerprint": "1"}')
    config = configure("score", {"model": "a"}, where="test")
    before = keys_of("score", config)
    assert keys_of("score", config) == before
    card.write_text('{"fingerprint": "2"}')
    after = keys_of("score", config)
    assert after != before
    (card.parent / "calibration.json").write_text("{}")
    assert keys_of("score", config) not in (before, after)


def test_bytecode_that_another_process_is_writing_is_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "steps_of_a_team").mkdir()
    (tmp_path / "steps_of_a_team" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)

    def new_digest() -> str:
        source_digest.cache_clear()
        return source_digest("steps_of_a_team")

    before = new_digest()
    (tmp_path / "steps_of_a_team" / "__pycache__").mkdir()
    (tmp_path / "steps_of_a_team" / "__pycache__" / "__init__.cpython-311.pyc.140234").write_bytes(b"half")
    assert new_digest() == before
