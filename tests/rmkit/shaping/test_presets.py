"""Every preset gives the numbers of its publication, and would not if any of its transforms did nothing."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rmkit.shaping import Chain, Group, chain
from rmkit.shaping.preset import Golden, presets

GOLDEN = [
    pytest.param(name, golden, id=f"{name}-{number}")
    for name, preset in presets().items()
    for number, golden in enumerate(preset.golden)
]


def outcome(name: str, golden: Golden, given: Chain | None = None) -> dict[str, Any]:
    group = Group.of(golden.columns)
    result = (given or chain({"use": name, **golden.options})).apply(group)
    return {column: result[column] for column in golden.expected}


def differs(seen: Any, expected: Any, tolerance: float) -> bool:
    if isinstance(expected, list) and isinstance(seen, list):
        return len(seen) != len(expected) or any(map(differs, seen, expected, [tolerance] * len(seen)))
    if not isinstance(expected, int | float) or not isinstance(seen, int | float | None):
        return bool(seen != expected)
    if seen is None or math.isnan(expected):
        return (seen is None) != math.isnan(expected)
    return abs(seen - expected) > tolerance


@pytest.mark.parametrize("name", presets())
def test_every_preset_has_a_golden(name: str) -> None:
    assert presets()[name].golden


@pytest.mark.parametrize(("name", "golden"), GOLDEN)
def test_golden(name: str, golden: Golden) -> None:
    seen = outcome(name, golden)
    for column, expected in golden.expected.items():
        assert not differs(seen[column], expected, golden.tolerance), (column, seen[column], expected)


@pytest.mark.parametrize("name", presets())
def test_each_transform_of_a_preset_matters(name: str) -> None:
    """One at a time is replaced by the identity, which hands its column on: some golden must notice."""
    options = presets()[name].golden
    for number, link in enumerate(chain({"use": name, **options[0].options}).links):
        assert any(_notices(name, golden, number) for golden in options), link.name


def _notices(name: str, golden: Golden, number: int) -> bool:
    whole = chain({"use": name, **golden.options})
    links = list(whole.links)
    links[number] = links[number]._replace(transform=Identity(links[number].transform))  # type: ignore[arg-type]
    try:
        seen = outcome(name, golden, replace(whole, links=tuple(links)))
    except Exception:  # what comes next does not even fit
        return True
    return any(differs(seen[column], expected, golden.tolerance) for column, expected in golden.expected.items())


def test_the_page_of_systems_names_every_preset_and_tests_that_exist() -> None:
    root = Path(__file__).parents[3]
    page = (root / "docs" / "systems.md").read_text()
    assert [name for name in presets() if f'`chain("{name}")`' not in page] == []
    code = "".join(path.read_text() for path in (root / "tests").rglob("test_*.py"))
    named = set(re.findall(r"`(test_\w+?)(?:_?\.\.\.)?(?:\[NAME[^`]*)?`", page))
    assert len(named) > 15
    assert [name for name in named if f"def {name}" not in code] == []


class Identity:
    """What a transform reads, written where it writes."""

    def __init__(self, of: Any) -> None:
        self.column, self.gives, self.needs = of.column, of.gives, {}

    def apply(self, group: Group) -> Group:
        if self.column not in group.columns:
            return group.with_column(self.gives, group.columns[next(iter(group.columns))])
        return group.with_column(self.gives, group.columns[self.column])
