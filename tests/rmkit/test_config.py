"""A wrong config is refused by name, with the way out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from rmkit.config import build, read_toml
from rmkit.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Sample:
    rate: float
    mode: Literal["fast", "slow"] = "fast"
    steps: int = 3
    name: str | None = None
    parts: tuple[float, ...] = ()
    on: bool = True
    seed: int = 0


def test_a_good_table_becomes_the_dataclass_with_types_adapted() -> None:
    assert build(Sample, {"rate": 1, "parts": [1, 2.5], "name": "x"}, where="t") == Sample(
        rate=1.0, parts=(1.0, 2.5), name="x"
    )


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"rat": 1.0}, r"t: unknown key 'rat'; did you mean 'rate'\? Known: rate, mode"),
        ({}, "t: missing rate"),
        ({"rate": "high"}, "t: rate: expected float, got 'high'"),
        ({"rate": True}, "expected float, got True"),
        ({"rate": 1.0, "steps": 1.5}, "steps: expected int, got 1.5"),
        ({"rate": 1.0, "steps": True}, "steps: expected int, got True"),
        ({"rate": 1.0, "on": 1}, "on: expected bool, got 1"),
        ({"rate": 1.0, "mode": "quick"}, "mode: expected one of 'fast', 'slow', got 'quick'"),
        ({"rate": 1.0, "parts": ["a"]}, "parts: expected float, got 'a'"),
        ({"rate": 1.0, "parts": 2}, "parts: expected tuple"),
        ({"rate": float("nan")}, "t: rate: expected a finite number, got nan"),
        ({"rate": 1.0, "parts": [1.0, float("-inf")]}, "parts: expected a finite number, got -inf"),
        ({"rate": 10**400}, "rate: expected a finite number, got 1000"),
        ({"rate": 1.0, "seed": -1}, "seed: expected at least 0, got -1"),
    ],
)
def test_a_wrong_table_is_refused_by_name(table: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(Sample, table, where="t")


def test_unreadable_files_are_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_toml(tmp_path / "absent.toml")
    (tmp_path / "bad.toml").write_text("a = ")
    with pytest.raises(ConfigError, match="cannot be read as TOML"):
        read_toml(tmp_path / "bad.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_toml(tmp_path)
