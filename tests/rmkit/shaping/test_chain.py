"""What a chain refuses, in words that name the transform; the same spec from TOML, JSON and Python; odd groups."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest

from rmkit.errors import ConfigError, DataError
from rmkit.shaping import Group, chain


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("z_scor", "unknown transform 'z_scor'; did you mean 'z_score'"),
        ({"use": "normalize", "epsilom": 1}, "chain: normalize: unknown key 'epsilom'; did you mean 'epsilon'"),
        ({"use": "normalize", "scale": "sd"}, "chain: normalize: scale: expected one of 'std'"),
        ({"use": "z_score", "epsilon": 1}, "chain: z_score: unknown option 'epsilon'"),
        ([3], "expected a name or a table with `use`, got 3"),
    ],
)
def test_a_wrong_spec_is_told_by_name(spec: Any, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        chain(spec)
    assert message in str(error.value)


def test_a_column_that_is_not_there_is_told_with_the_nearest() -> None:
    with pytest.raises(DataError, match="transform normalize: unknown column 'n_cals'; did you mean 'n_calls'"):
        chain({"use": "normalize", "by": "n_cals"}).apply(Group.of(reward=[1.0, 2.0], n_calls=[1, 2]))
    with pytest.raises(DataError, match="column 'length' has 1 values, column 'reward' has 2"):
        Group.of(reward=[1.0, 2.0], length=[3])


def test_one_spec_in_three_languages() -> None:
    spec = ["rank", {"use": "normalize", "by": "stratum", "scale": "none"}]
    as_toml = tomllib.loads('chain = ["rank", {use = "normalize", by = "stratum", scale = "none"}]')["chain"]
    group = Group.of(reward=[3.0, None, 1.0, 7.0, 2.0], stratum=["x", "x", "y", "x", "y"])
    # Ranks among four: 2/3, 0, 1, 1/3; means by stratum 5/6 and 1/6.
    for one in (spec, as_toml, json.loads(json.dumps(spec))):
        assert chain(one).apply(group)["reward"] == [
            pytest.approx(-1 / 6), None, pytest.approx(-1 / 6), pytest.approx(1 / 6), pytest.approx(1 / 6)
        ]  # fmt: skip
    assert dict(chain(spec).needs) == {"reward": "number", "stratum": "key"}


@pytest.mark.parametrize(("single", "right"), [(0.0, 0.0), ("raw", 0.3), ("missing", None)])
def test_what_a_group_of_one_gets_is_an_option(single: Any, right: float | None) -> None:
    group = Group.of(reward=[0.3, 1.0, 2.0, None], group=["a", "b", "b", "a"])
    assert chain({"use": "normalize", "single": single, "scale": "none"}).apply(group)["reward"] == [
        right, -0.5, 0.5, None
    ]  # fmt: skip


def test_a_group_in_which_all_is_missing_stays_so_or_becomes_zero_as_in_trl() -> None:
    group = Group.of(reward=[None, None, 1.0, 3.0], group=["a", "a", "b", "b"])
    assert chain("center").apply(group)["reward"] == [None, None, -1.0, 1.0]
    assert chain({"use": "normalize", "scale": "none", "unscored": "zero"}).apply(group)["reward"] == [0, 0, -1, 1]
