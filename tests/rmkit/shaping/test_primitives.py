"""Properties that hold for every transform, and what single ones do with odd input."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from rmkit import plugins
from rmkit.errors import ConfigError, DataError
from rmkit.shaping import Chain, Group, chain
from rmkit.shaping.preset import presets

EXAMPLES: dict[str, list[dict[str, Any]]] = {  # options under which a transform is tried
    "affine": [{"scale": 2.5, "shift": -1}, {"add": {"other": -1}}, {"shift": "other", "unscored": "zero"}],
    "clip": [{"min": -1, "max": 1.5}],
    "curve": [{"function": name} for name in ("log", "exp", "tanh", "logistic", "softplus", "abs", "sign")]
    + [{"function": "sign", "margin": 1.0}, {"function": "power", "exponent": 2}, {"function": "log", "factor": -2}],
    "multiply": [{"by": "other"}, {"over": ["other"], "epsilon": 0.5}],
    "schedule": [{"column": "reward", "shape": one} for one in ("linear", "cosine", "exponential", "step")],
    "table": [{"keys": "reward", "bands": {"reward": [-1, 1]}, "rows": [[0, -3], [1, "other"], [2, 5]]}],
    "gate": [{"at_least": 0}, {"where": "other", "below": 0, "then": 1, "otherwise": -1}],
    "reduce": [{"column": "turns", "into": "reward", "how": one} for one in ("sum", "mean", "last", "max", "quantile")],
    "returns": [{"column": "turns", "gamma": 0.9, "into": "reward"}],
    "shift": [
        {"column": "turns", "fill": 0.5, "into": "reward"},
        {"column": "turns", "by": -1, "fill": "own", "into": "reward"},
    ],
    "attention": [{"column": "turns", "influence": "turns", "into": "reward", "near": 1.0}],
    "quantile_risk": [{"lower": "low", "upper": "high"}],
    "aggregate": [{"how": one} for one in ("sum", "mean", "min", "max", "first", "count", "mode", "quantile", "std")],
    "contrast": [{"positive": "other"}],
    "cluster": [{"how": one} for one in ("share", "entropy", "evenness", "distinct", "answers")],
    "drop": [{"column": "other", "into": "reward"}],
    "normalize": [
        {"center": center, "scale": scale, "epsilon": epsilon}
        for center in ("mean", "others", "min")
        for scale in ("std", "population_std", "range", "none")
        for epsilon in (0.0, 1e-6)
    ]
    + [{"where": "other"}, {"weight": "length"}, {"once_per": "answer"}, {"by": "batch"}, {"unscored": "zero"}],
    "rank": [{}, {"by": ["group", "answer"]}],
    "pass_at_k": [
        {"column": "correct", "k": 2, "into": "reward"},
        {"column": "correct", "k": 2, "how": "estimate", "into": "reward"},
    ],
    "place": [
        {"onto": "length"},
        {"onto": "turns", "at": "last"},
        {"divided": True},
        {"column": "turns", "onto": "turns_long", "at": "first", "into": "reward"},
    ],
}
CASES = [
    pytest.param(name, options, id=f"{name}-{i}")
    for name, all_of in EXAMPLES.items()
    for i, options in enumerate(all_of)
]
SPREADS = {
    "aggregate",
    "contrast",
    "cluster",
    "drop",
    "reduce",
}  # what they give stands where something is missing, too


def group(seed: int, **changed: Any) -> Group:
    """Three groups of 3, 5 and 1, with ties and missing values."""
    draw = random.Random(seed)
    keys = ["a", "b", "b", "a", "b", "b", "c", "a", "b"]
    n = len(keys)
    turns = [[draw.gauss(0, 2) for _ in range(draw.randint(1, 4))] for _ in range(n)]
    columns: dict[str, Any] = {
        "reward": [draw.choice([None, 1.5, draw.gauss(0, 2), draw.gauss(0, 2)]) for _ in range(n)],
        "other": [draw.choice([-2.0, 0.5, 3.0]) for _ in range(n)],
        "answer": [draw.choice("xyz") for _ in range(n)],
        "correct": [draw.choice([None, 0, 1, 1]) for _ in range(n)],
        "stratum": [draw.choice([0, 1]) for _ in range(n)],
        "low": [-1.0] * n,
        "high": [2.0] * n,
        "length": [draw.randint(1, 5) for _ in range(n)],
        "turns": turns,
        "turns_long": [[draw.randint(0, 3) for _ in row] for row in turns],
        "group": keys,
    }
    return Group.of({**columns, **changed})


def applied(transform: Chain, one: Group) -> list[Any]:
    result: list[Any] = transform.apply(one)["reward"]
    return result


def close(first: Any, second: Any, tolerance: float = 1e-9) -> bool:
    if isinstance(first, list):
        return len(first) == len(second) and all(map(close, first, second, [tolerance] * len(first)))
    if first is None or second is None:
        return first is second
    return math.isclose(first, second, rel_tol=tolerance, abs_tol=tolerance)


def test_all_transforms_are_tried() -> None:
    assert set(EXAMPLES) == set(plugins.BUILT_IN["transforms"])
    assert len(EXAMPLES) <= 20


@pytest.mark.parametrize(("name", "options"), CASES)
def test_what_is_declared_holds(name: str, options: dict[str, Any]) -> None:
    """Each declared invariance; order of the rows; missing values stay missing and have no part in the others."""
    transform = chain({"use": name, **options})
    link = transform.links[0].transform
    source = link.column
    for seed in range(6):
        whole = group(seed)
        values, result = whole[source], applied(transform, whole)
        if name != "drop":
            _check_order_of_rows(transform, whole)
        for keep in link.keeps:
            CHECKS[keep](transform, link, whole, source, values, result)
        if name not in SPREADS and isinstance(values[0], float | None) and not {"unscored", "then"} & set(options):
            for value, one in zip(values, result, strict=True):
                assert value is not None or one is None or one == [None] * len(one), (value, one)


def _check_order_of_rows(transform: Chain, whole: Group) -> None:
    order = list(range(whole.n))
    random.Random(1).shuffle(order)
    within = {key: [i for i in range(whole.n) if whole["group"][i] == key] for key in "abc"}
    if transform.links[0].name == "aggregate" or "once_per" in transform.spec:  # `first` and once_per go by order
        order = [i for key in "bca" for i in within[key]]
    moved = Group.of({name: [whole[name][i] for i in order] for name in whole.columns})
    result = applied(transform, whole)
    assert close(applied(transform, moved), [result[i] for i in order])


def _with(whole: Group, source: str, values: list[Any]) -> Group:
    return Group.of({**{name: whole[name] for name in whole.columns}, source: values})


def _shift(transform: Chain, link: Any, whole: Group, source: str, values: Any, result: Any) -> None:
    moved = [None if value is None else value + 3.25 for value in values]
    assert close(applied(transform, _with(whole, source, moved)), result, 1e-6)


def _scale(transform: Chain, link: Any, whole: Group, source: str, values: Any, result: Any) -> None:
    moved = [None if value is None else value * 3.5 for value in values]
    assert close(applied(transform, _with(whole, source, moved)), result)


def _order(transform: Chain, link: Any, whole: Group, source: str, values: Any, result: Any) -> None:
    keys = list(
        zip(*(whole[key] for key in ("group", *([] if "answer" not in transform.spec else ["answer"]))), strict=True)
    )
    rows = [
        (key, value, one)
        for key, value, one in zip(keys, values, result, strict=True)
        if one is not None and value is not None
    ]
    for key, value, one in rows:
        assert all(other >= one - 1e-9 for at, more, other in rows if at == key and more >= value), (value, one)


def _sum(transform: Chain, link: Any, whole: Group, source: str, values: Any, result: Any) -> None:
    onto = whole[link.onto]
    for value, one, places in zip(values, result, onto, strict=True):
        before = value if isinstance(value, list) else [value]
        counts = places if isinstance(value, list) else [places if isinstance(places, int | float) else len(places)]
        if None not in before and one:
            assert math.isclose(sum(x for x, k in zip(before, counts, strict=True) if k), sum(one), abs_tol=1e-9)


def _zero(transform: Chain, link: Any, whole: Group, source: str, values: Any, result: Any) -> None:
    keys = [0] * whole.n if "batch" in transform.spec else whole["group"]
    for key in set(keys):
        members = [one for at, one in zip(keys, result, strict=True) if at == key and one is not None]
        assert abs(sum(members)) < 1e-9


CHECKS = {"shift": _shift, "scale": _scale, "order": _order, "sum": _sum, "zero": _zero}


@pytest.mark.parametrize("name", [name for name, preset in presets().items() if preset.keeps])
def test_what_presets_declare_holds(name: str) -> None:
    transform = chain(name)
    for seed in range(6):
        whole = group(seed)
        if name.startswith("pass_at_k"):
            whole = _with(whole, "reward", whole["correct"])
        if name == "maxrl":  # of rewards that are not negative
            whole = _with(whole, "reward", [None if one is None else abs(one) for one in whole["reward"]])
        if name == "confucius3":  # of rewards in -1 and 1, for which the weight is positive
            whole = _with(
                whole, "reward", [None if one is None else max(-1.0, min(1.0, one)) for one in whole["reward"]]
            )
        values, result = whole["reward"], applied(transform, whole)
        for keep in presets()[name].keeps:
            if not (keep == "order" and name == "reinforce_plus_plus_baseline"):
                CHECKS[keep](transform, None, whole, "reward", values, result)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            ["z_score", "overlong"],
            "overlong belongs to the stage sample, but stands behind z_score of the stage normalize",
        ),
        (["thinkless", "grpo"], "grpo belongs to the stage normalize, but stands behind thinkless of the stage place"),
        (["rank", {"use": "cluster"}], "cluster belongs to the stage group, but stands behind rank"),
        ({"use": "clip", "min": 2, "max": 1}, "chain: clip: min must not be above max, got 2.0 and 1.0"),
        ({"use": "pass_at_k", "k": 0}, "k must be at least 1"),
        ({"use": "table", "keys": ["a", "b"], "rows": [["x", 1]]}, "expected 2 keys and a number, got ['x', 1]"),
        ({"use": "gate", "at_least": True}, "expected a number, a column or 'missing', got True"),
    ],
)
def test_impossible_orders_and_options(spec: Any, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        chain(spec)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("spec", "columns", "message"),
    [
        ("high_entropy_tokens", {"entropy": [0.5, 1]}, None),
        (
            "empg",
            {"reward": [1.0], "step_entropy": [2.0]},
            "transform empg.shift: column '_h' is a scalar, expected a list",
        ),
        (
            "copg",
            {"reward": [1.0], "log_ratios": [2.0]},
            "transform copg.affine: unknown column 'log_ratio'; did you mean 'log_ratios'",
        ),
        (
            "comas",
            {"role": ["solver"], "score": ["high"]},
            "transform comas.affine: column 'score' holds labels such as ('high',)",
        ),
        (
            {"use": "multiply", "by": "w"},
            {"reward": [[1.0, 2.0]], "w": [[1.0]]},
            "transform multiply: the lists of column 'w' are not as long",
        ),
        (
            {"use": "pass_at_k", "k": 1},
            {"reward": [0.5, 1.0]},
            "transform pass_at_k: column 'reward' must hold 1 (right) and 0 (wrong) only",
        ),
        (
            {"use": "place"},
            {"reward": [0.5], "length": [1.5]},
            "transform place: column 'length' must hold whole numbers",
        ),
    ],
)
def test_columns_that_do_not_fit(spec: Any, columns: dict[str, Any], message: str | None) -> None:
    if message is None:
        chain(spec).apply(Group.of(columns))
        return
    with pytest.raises(DataError) as error:
        chain(spec).apply(Group.of(columns))
    assert message in str(error.value)


def test_a_missing_reward_has_no_part_in_any_other() -> None:
    """With a row unscored, the others are what they are in a group that never had it."""
    for name in ("grpo", "z_score", "rloo", "rank", "maxrl", "confucius3", "rec_weighted", "grpo_passk", "p3o"):
        whole = Group.of(reward=[1.0, None, 0.25, 0.0, None, 0.5], group=["a", "a", "a", "a", "b", "a"])
        less = Group.of(reward=[1.0, 0.25, 0.0, 0.5])
        result = chain(name).apply(whole)["reward"]
        assert result[1] is None
        assert close([result[i] for i in (0, 2, 3, 5)], chain(name).apply(less)["reward"]), name


def test_risk_of_single_scores() -> None:
    columns = {"reward": [0, 1, 2, 3, 4, 5], "quantile_lower": [2] * 6, "quantile_upper": [4] * 6}
    result = chain("quantile_risk").apply(Group.of(columns))["reward"]
    assert result == [pytest.approx(x, abs=5e-3) for x in (-7.33, -4.33, -1.33, -0.67, 0, 0)]


def test_returns_of_rows_that_are_steps() -> None:
    one = Group.of(reward=[0, 0, 1, 0.2, 2], trajectory=["x", "y", "x", "y", "x"])
    # x: 0 + .5 (1 + .5 * 2) = 1; 1 + 1 = 2; 2.  y: 0 + .5 * .2; .2
    result = chain({"use": "returns", "gamma": 0.5, "by": "trajectory"}).apply(one)["reward"]
    assert result == [1.0, 0.1, 2.0, 0.2, 2.0]


def test_reduction_by_sections_makes_a_list_of_their_means() -> None:
    one = Group.of(entropy=[[1, 3, 4, 8, None], [5], []], step=[["a", "a", "b", "a", "a"], ["b"], []])
    result = chain({"use": "reduce", "column": "entropy", "by": "step", "how": "mean", "into": "reward"}).apply(one)
    assert result["reward"] == [[2.0, 4.0, 8.0], [5.0], []]
